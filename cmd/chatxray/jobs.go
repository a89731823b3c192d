package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strconv"

	"chatxray/pipeline"
)

type jobsCmd struct {
	List  jobsListCmd  `cmd:"" help:"List what is not done: studies that are to be read, documents that are to be delivered."`
	Show  jobsShowCmd  `cmd:"" help:"Show what is not done of a study, with the whole reason."`
	Retry jobsRetryCmd `cmd:"" help:"Take up a reading or a delivery that was given up."`
	Drop  jobsDropCmd  `cmd:"" help:"Give up a reading or a delivery; nothing that was stored is lost."`
}

type jobsListCmd struct {
	URL  string `arg:"" help:"DICOMweb service root of a running chatxray, for example http://127.0.0.1:8080/dicom-web."`
	Dead bool   `help:"Only what was given up and waits for a person."`
	JSON bool   `help:"Print JSON, an object a line."`
	serverFlags
}

// Run prints page after page.
func (c jobsListCmd) Run(ctx context.Context, s streams) error {
	out := newTable(s.out, c.JSON, "STUDY", "JOB", "STATE", "SINCE", "ATTEMPTS", "REASON")
	for after := ""; ; {
		query := url.Values{}
		if after != "" {
			query.Set("after", after)
		}
		if c.Dead {
			query.Set("dead", "true")
		}
		page, err := c.jobs(ctx, c.URL, "/jobs?"+query.Encode())
		if err != nil {
			return err
		}
		for _, t := range page.Jobs {
			reason := because(pipeline.Change{Reason: t.Reason, Next: t.Next})
			if err := out.row(t, t.StudyInstanceUID, jobName(t), jobState(t), when(t.Since), strconv.Itoa(t.Attempts), fmt.Sprintf("%.100s", reason)); err != nil {
				return err
			}
		}
		if after = page.Next; after == "" {
			return out.flush()
		}
	}
}

type jobsPage struct {
	Jobs []pipeline.Task
	Next string
}

func (f serverFlags) jobs(ctx context.Context, service, path string) (page jobsPage, err error) {
	b, err := f.ask(ctx, http.MethodGet, service, path, "application/json")
	if err != nil {
		return page, err
	}
	if err := json.Unmarshal(b, &page); err != nil {
		return page, fmt.Errorf("%w: %s answers what is no list of jobs: %w", errServer, service, err)
	}
	return page, nil
}

func jobName(t pipeline.Task) string {
	if t.Destination != "" {
		return "deliver to " + t.Destination
	}
	return "read"
}

func jobState(t pipeline.Task) string {
	switch {
	case t.Dead:
		return "given up"
	case t.Destination != "":
		return "on its way"
	}
	return string(t.State) + ", " + string(t.Lane)
}

type jobsShowCmd struct {
	URL   string `arg:"" help:"DICOMweb service root of a running chatxray."`
	Study string `arg:"" help:"Study Instance UID."`
	JSON  bool   `help:"Print JSON, an object a line."`
	serverFlags
}

// Run prints the jobs of a study.
func (c jobsShowCmd) Run(ctx context.Context, s streams) error {
	page, err := c.jobs(ctx, c.URL, "/studies/"+url.PathEscape(c.Study)+"/jobs")
	if err != nil {
		return err
	}
	out := newTable(s.out, c.JSON, "JOB", "STATE", "SINCE", "ATTEMPTS", "WORKER", "REASON")
	for _, t := range page.Jobs {
		if err := out.row(t, jobName(t), jobState(t), when(t.Since), strconv.Itoa(t.Attempts), t.Worker, because(pipeline.Change{Reason: t.Reason, Next: t.Next})); err != nil {
			return err
		}
	}
	return out.flush()
}

type jobFlags struct {
	URL         string `arg:"" help:"DICOMweb service root of a running chatxray."`
	Study       string `arg:"" help:"Study Instance UID."`
	Destination string `help:"The delivery to this destination; without it, the reading." placeholder:"NAME"`
	serverFlags
}

func (c jobFlags) change(ctx context.Context, s streams, verb, said string) error {
	path := "/studies/" + url.PathEscape(c.Study) + "/jobs/" + verb
	if c.Destination != "" {
		path += "?" + url.Values{"destination": {c.Destination}}.Encode()
	}
	if _, err := c.ask(ctx, http.MethodPost, c.URL, path, "application/json"); err != nil {
		return err
	}
	fmt.Fprintln(s.err, said)
	return nil
}

type jobsRetryCmd struct{ jobFlags }

// Run asks the service to do it again.
func (c jobsRetryCmd) Run(ctx context.Context, s streams) error {
	return c.change(ctx, s, "retry", "it is taken up again; chatxray studies timeline tells how it goes")
}

type jobsDropCmd struct{ jobFlags }

// Run asks the service to let it be.
func (c jobsDropCmd) Run(ctx context.Context, s streams) error {
	return c.change(ctx, s, "drop", "it is given up; chatxray jobs retry takes it up again")
}
