package main

import (
	"context"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"time"

	"chatxray/pipeline"
)

type jobsCmd struct {
	List  jobsListCmd  `cmd:"" help:"List what is not done: studies that are to be read, documents that are to be delivered."`
	Show  jobsShowCmd  `cmd:"" help:"Show what is not done of a study, with the whole reason."`
	Retry jobsRetryCmd `cmd:"" help:"Take up the reading of a study, or a delivery, that was given up or waits for another attempt."`
	Drop  jobsDropCmd  `cmd:"" help:"Give up a reading or a delivery that is not done; nothing that was stored is lost."`
}

type tasksFlags struct {
	URL  string `arg:"" help:"DICOMweb service root of a running chatxray, for example http://127.0.0.1:8080/dicom-web."`
	Dead bool   `help:"Only what was given up and waits for a person."`
	JSON bool   `help:"Print JSON, an object a line."`
	serverFlags
}

type jobsListCmd struct{ tasksFlags }

// Run prints page after page.
func (c jobsListCmd) Run(ctx context.Context, s streams) error {
	return c.list(ctx, s, "/jobs", nil)
}

// tasks is a page of a list of jobs, or of deliveries.
type tasks struct {
	Jobs, Deliveries []pipeline.Task
	Destinations     []pipeline.DestinationState
	Next             string
}

// pages calls each with page after page of a list of tasks.
func (f tasksFlags) pages(ctx context.Context, path string, query url.Values, each func(tasks) error) error {
	if query == nil {
		query = url.Values{}
	}
	if f.Dead {
		query.Set("dead", "true")
	}
	for {
		page, err := fetch[tasks](ctx, f.serverFlags, f.URL, path+"?"+query.Encode())
		if err != nil {
			return err
		}
		if err := each(page); err != nil || page.Next == "" {
			return err
		}
		query.Set("after", page.Next)
	}
}

// list prints a list of tasks.
func (f tasksFlags) list(ctx context.Context, s streams, path string, query url.Values) error {
	out := newTable(s.out, f.JSON, "STUDY", "JOB", "STATE", "SINCE", "ATTEMPTS", "REASON")
	told := false
	err := f.pages(ctx, path, query, func(page tasks) error {
		for _, d := range page.Destinations {
			if d.Away && !told {
				fmt.Fprintf(s.err, "%s has been away since %s, %d deliveries wait: %s\n", d.Name, when(d.Since), d.Queued, d.Reason)
			}
		}
		told = true
		for _, t := range append(page.Jobs, page.Deliveries...) {
			if err := out.row(t, t.StudyInstanceUID, jobName(t), jobState(t), when(t.Since), strconv.Itoa(t.Attempts), shortened(t.Reason, 100)); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	return out.flush()
}

func jobName(t pipeline.Task) string {
	if t.Destination != "" {
		return "deliver to " + t.Destination
	}
	return "read"
}

func jobState(t pipeline.Task) string {
	switch {
	case !t.Delivered.IsZero():
		return "delivered " + when(t.Delivered)
	case t.Dead && t.GivenUp.IsZero():
		return "given up"
	case t.Dead:
		return "given up " + when(t.GivenUp)
	case !t.Next.IsZero():
		return failedAndWaits(t.Attempts, t.Next)
	case t.Destination != "":
		return "on its way"
	}
	return string(t.State) + ", " + string(t.Lane)
}

// failedAndWaits tells of what waits for another attempt. None counts where its destination was known to be away.
func failedAndWaits(attempts int, next time.Time) string {
	switch attempts {
	case 0:
		return "waits, tried again at " + when(next)
	case 1:
		return "failed once, again at " + when(next)
	}
	return fmt.Sprintf("failed %d times, again at %s", attempts, when(next))
}

// shortened is a text of at most so many characters, which ends with its last whole word and an ellipsis where something is left out.
func shortened(s string, most int) string {
	r := []rune(s)
	if len(r) <= most {
		return s
	}
	cut := string(r[:most-1])
	if r[most-1] != ' ' {
		if i := strings.LastIndexByte(cut, ' '); i > 0 {
			cut = cut[:i]
		}
	}
	return strings.TrimRight(cut, " ,;:") + "…"
}

type studyFlags struct {
	URL   string `arg:"" help:"DICOMweb service root of a running chatxray."`
	Study string `arg:"" help:"Study Instance UID."`
	JSON  bool   `help:"Print JSON, an object a line."`
	serverFlags
}

// show prints tasks of a study.
func (f studyFlags) show(ctx context.Context, s streams, resource string) error {
	page, err := fetch[tasks](ctx, f.serverFlags, f.URL, ofStudy(f.Study, resource))
	if err != nil {
		return err
	}
	out := newTable(s.out, f.JSON, "JOB", "STATE", "SINCE", "ATTEMPTS", "WORKER", "REASON")
	for _, t := range append(page.Jobs, page.Deliveries...) {
		reason := t.Reason
		if t.Answer != "" {
			reason += fmt.Sprintf("; it says %q", t.Answer)
		}
		if err := out.row(t, jobName(t), jobState(t), when(t.Since), strconv.Itoa(t.Attempts), t.Worker, reason); err != nil {
			return err
		}
	}
	return out.flush()
}

type jobsShowCmd struct{ studyFlags }

// Run prints the jobs of a study.
func (c jobsShowCmd) Run(ctx context.Context, s streams) error { return c.show(ctx, s, "/jobs") }

type jobFlags struct {
	URL         string `arg:"" help:"DICOMweb service root of a running chatxray."`
	Study       string `arg:"" help:"Study Instance UID."`
	Destination string `help:"The delivery to this destination; without it, the reading." placeholder:"NAME"`
	serverFlags
}

const (
	saysRetried = "it is taken up again; chatxray studies timeline tells how it goes"
	saysDropped = "it is given up; retry takes it up again"
)

func (c jobFlags) change(ctx context.Context, s streams, verb, said string) error {
	resource := "/jobs/" + verb
	if c.Destination != "" {
		resource += "?" + url.Values{"destination": {c.Destination}}.Encode()
	}
	if err := c.order(ctx, c.URL, c.Study, resource); err != nil {
		return err
	}
	fmt.Fprintln(s.err, said)
	return nil
}

type jobsRetryCmd struct{ jobFlags }

// Help is shown by chatxray jobs retry --help.
func (jobsRetryCmd) Help() string {
	return `Takes up a reading that has failed (given up or not), was refused or is held, and a delivery that was given up or waits for its next attempt;
anything else is 409. Attempts are counted anew, and the timeline tells who asked.` + needsAdmin
}

const needsAdmin = ` Where the service knows roles this needs admin.`

// Run asks the service to do it again.
func (c jobsRetryCmd) Run(ctx context.Context, s streams) error {
	return c.change(ctx, s, "retry", saysRetried)
}

type jobsDropCmd struct{ jobFlags }

// Help is shown by chatxray jobs drop --help.
func (jobsDropCmd) Help() string {
	return `Gives up a reading that is not done (receiving, complete, queued, reading, or failed and tried again): the study is held. Or a delivery that is
not done. Anything else is 409. What is being done is stopped; retry takes it up again. The timeline tells who dropped it.` + needsAdmin
}

// Run asks the service to let it be.
func (c jobsDropCmd) Run(ctx context.Context, s streams) error {
	return c.change(ctx, s, "drop", saysDropped)
}
