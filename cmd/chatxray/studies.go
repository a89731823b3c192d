package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"chatxray/pipeline"
)

type studiesCmd struct {
	List     studiesListCmd     `cmd:"" help:"List studies, where each stands and since when."`
	Show     studiesShowCmd     `cmd:"" help:"Show where one study stands."`
	Timeline studiesTimelineCmd `cmd:"" help:"Show every step of a study's life, with time, reason and worker."`
	Force    studiesForceCmd    `cmd:"" help:"Have a study read now, as it is, without waiting for more images."`
	Export   studiesExportCmd   `cmd:"" help:"Write a study with its documents, records, steps and conversations to a folder or a ZIP file."`
}

type studiesListCmd struct {
	URL   string         `arg:"" help:"DICOMweb service root of a running chatxray, for example http://127.0.0.1:8080/dicom-web."`
	State pipeline.State `help:"Only studies in this state: receiving, complete, queued, reading, reported, delivered, refused, withdrawn, held, failed."`
	Limit int            `default:"0" help:"At most so many; 0: all."`
	JSON  bool           `help:"Print JSON, an object a line."`
	serverFlags
}

// Run prints page after page.
func (c studiesListCmd) Run(ctx context.Context, s streams) error {
	out := newTable(s.out, c.JSON, "STUDY", "STATE", "SINCE", "ATTEMPTS", "REASON")
	query := url.Values{"state": {string(c.State)}}
	left := c.Limit
	for more := true; more; {
		if c.Limit > 0 {
			query.Set("limit", strconv.Itoa(min(left, 1000)))
		}
		page, err := fetch[struct {
			Studies []pipeline.Life
			Next    string
		}](ctx, c.serverFlags, c.URL, "/readings?"+query.Encode())
		if err != nil {
			return err
		}
		for _, l := range page.Studies {
			if err := out.row(l, l.StudyInstanceUID, string(l.State), when(l.At), strconv.Itoa(l.Attempts), because(l.Change)); err != nil {
				return err
			}
		}
		left -= len(page.Studies)
		query.Set("after", page.Next)
		more = page.Next != "" && (c.Limit == 0 || left > 0)
	}
	return out.flush()
}

type studiesShowCmd struct {
	URL   string `arg:"" help:"DICOMweb service root of a running chatxray."`
	Study string `arg:"" help:"Study Instance UID."`
	JSON  bool   `help:"Print JSON."`
	serverFlags
}

// Run prints the state, its reason, and what became of the documents.
func (c studiesShowCmd) Run(ctx context.Context, s streams) error {
	said, err := fetch[json.RawMessage](ctx, c.serverFlags, c.URL, ofStudy(c.Study, "/reading"))
	if err != nil {
		return err
	}
	if c.JSON {
		_, err := fmt.Fprintln(s.out, strings.TrimSpace(string(said)))
		return err
	}
	var st pipeline.Status
	if err := json.Unmarshal(said, &st); err != nil {
		return fmt.Errorf("%w: %s answers what is no state of a study: %w", errServer, c.URL, err)
	}
	out := newTable(s.out, false, "STUDY", c.Study)
	rows := [][]string{{"STATE", string(st.State)}, {"SINCE", when(st.Life.At)}, {"LANE", string(st.Life.Lane)}, {"RECEIVED", when(st.Life.Received)},
		{"ATTEMPTS", strconv.Itoa(st.Life.Attempts)}, {"REASON", because(st.Life.Change)}, {"WORKER", st.Life.Worker}}
	if r := st.Record; r != nil {
		if r.Reading != nil {
			rows = append(rows, []string{"MODEL", r.Reading.Model.Name + " " + r.Reading.Model.Version}, []string{"REVISION", strconv.Itoa(r.Reading.Revision)})
		}
		for _, d := range r.Documents {
			rows = append(rows, []string{"DOCUMENT", string(d.Kind) + " " + d.SOPInstanceUID})
		}
		for _, to := range slices.Sorted(maps.Keys(r.Deliveries)) {
			rows = append(rows, []string{"DELIVERY", to + ": " + delivered(r.Deliveries[to])})
		}
	}
	for _, cells := range rows {
		if strings.TrimSpace(cells[1]) == "" {
			continue
		}
		if err := out.row(nil, cells...); err != nil {
			return err
		}
	}
	return out.flush()
}

func delivered(d *pipeline.Delivery) string {
	switch {
	case !d.Delivered.IsZero():
		return "delivered " + when(d.Delivered)
	case d.Dead:
		return "given up: " + d.Error
	case d.Error != "":
		return failedAndWaits(d.Attempts, d.Next) + ": " + d.Error
	}
	return "on its way"
}

type studiesTimelineCmd struct {
	URL   string `arg:"" help:"DICOMweb service root of a running chatxray."`
	Study string `arg:"" help:"Study Instance UID."`
	JSON  bool   `help:"Print the steps as JSON, an object a line."`
	serverFlags
}

// Run prints the steps.
func (c studiesTimelineCmd) Run(ctx context.Context, s streams) error {
	life, err := fetch[struct{ Steps []pipeline.Change }](ctx, c.serverFlags, c.URL, ofStudy(c.Study, "/reading/timeline"))
	if err != nil {
		return err
	}
	out := newTable(s.out, c.JSON, "AT", "STATE", "REASON", "WORKER")
	for _, step := range life.Steps {
		if err := out.row(step, when(step.At), string(step.State), because(step), step.Worker); err != nil {
			return err
		}
	}
	return out.flush()
}

type studiesForceCmd struct {
	URL   string `arg:"" help:"DICOMweb service root of a running chatxray."`
	Study string `arg:"" help:"Study Instance UID."`
	serverFlags
}

// Help is shown by chatxray studies force --help.
func (studiesForceCmd) Help() string {
	return `Takes a study that is receiving, has failed, was refused or is held; any other is 409. The timeline tells who asked.` + needsAdmin
}

// Run asks the service to read the study.
func (c studiesForceCmd) Run(ctx context.Context, s streams) error {
	if err := c.order(ctx, c.URL, c.Study, "/reading/force"); err != nil {
		return err
	}
	fmt.Fprintln(s.err, "it is read as it is; chatxray studies timeline tells how it goes")
	return nil
}

// ofStudy is the path of a resource of a study.
func ofStudy(study, resource string) string { return "/studies/" + url.PathEscape(study) + resource }

// fetch asks a service for JSON.
func fetch[T any](ctx context.Context, f serverFlags, service, path string) (v T, err error) {
	b, err := f.ask(ctx, http.MethodGet, service, path, "application/json")
	if err != nil {
		return v, err
	}
	if err := json.Unmarshal(b, &v); err != nil {
		return v, noService(service, path)
	}
	return v, nil
}

func when(t time.Time) string { return t.Local().Format("2006-01-02 15:04:05.000") }

// because is the reason of a step, and when it is tried again.
func because(c pipeline.Change) string {
	if c.Next.IsZero() {
		return c.Reason
	}
	return c.Reason + "; again at " + when(c.Next)
}

// table prints rows in columns, or objects as JSON, one a line.
type table struct {
	json    *json.Encoder
	columns *tabwriter.Writer
}

func newTable(w io.Writer, asJSON bool, titles ...string) *table {
	if asJSON {
		return &table{json: json.NewEncoder(w)}
	}
	t := &table{columns: tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)}
	fmt.Fprintln(t.columns, strings.Join(titles, "\t"))
	return t
}

func (t *table) row(object any, cells ...string) error {
	if t.json != nil {
		return t.json.Encode(object)
	}
	for i, c := range cells { // a reason may have lines
		cells[i] = strings.Join(strings.Fields(c), " ")
	}
	_, err := fmt.Fprintln(t.columns, strings.Join(cells, "\t"))
	return err
}

func (t *table) flush() error {
	if t.columns == nil {
		return nil
	}
	return t.columns.Flush()
}
