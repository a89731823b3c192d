package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"strings"
	"time"

	"chatxray/pipeline"
)

type showCmd struct {
	URL   string        `arg:"" help:"DICOMweb service root of a running chatxray, for example http://127.0.0.1:8080/dicom-web."`
	Study string        `arg:"" help:"Study Instance UID."`
	Wait  time.Duration `default:"5m" help:"How long to wait for the report."`
	Out   string        `help:"Folder for the DICOM SR objects and a PNG of what the model saw." placeholder:"DIR"`
	JSON  bool          `help:"Print the JSON object of docs/report-json.md instead of text."`
	serverFlags
}

// Run waits until the study is reported, refused or has failed, and shows it.
func (c showCmd) Run(ctx context.Context, s streams) error {
	st, err := c.wait(ctx, s)
	if err != nil {
		return err
	}
	rep := studyReport{Schema: reportSchema, StudyInstanceUID: c.Study, State: st.State}
	if rep.State == pipeline.StateDelivered { // the object's states are those of a report
		rep.State = pipeline.StateReported
	}
	if r := st.Record; r != nil {
		rep.Error, rep.Reading, rep.Refused = r.Error, r.Reading, r.Refused
		for _, d := range r.Documents {
			rep.Documents = append(rep.Documents, writtenDocument{Kind: d.Kind, SOPInstanceUID: d.SOPInstanceUID})
		}
	}
	if c.Out != "" && rep.State == pipeline.StateReported {
		if err := c.fetch(ctx, st, &rep); err != nil {
			return err
		}
	}
	if err := printReport(s, c.JSON, rep); err != nil {
		return err
	}
	switch rep.State {
	case pipeline.StateHeld:
		fmt.Fprintf(s.err, "study %s: held for review: nothing of it is delivered until chatxray release %s %s\n", c.Study, c.URL, c.Study)
	case pipeline.StateRefused:
		return fmt.Errorf("%w%w", errQuiet, pipeline.ErrNotImage)
	case pipeline.StateFailed:
		return fmt.Errorf("%w%w", errQuiet, errServer)
	}
	return nil
}

// wait polls the state of the study and tells when it changes.
func (c showCmd) wait(ctx context.Context, s streams) (pipeline.Status, error) {
	var told string
	for end := time.Now().Add(c.Wait); ; {
		path := ofStudy(c.Study, "/reading")
		st, err := fetch[pipeline.Status](ctx, c.serverFlags, c.URL, path)
		now := string(st.State)
		switch {
		case errors.Is(err, pipeline.ErrNotFound) && !errors.Is(err, errElsewhere):
			now = "nothing of it is here yet"
		case err != nil:
			return st, err
		case st.State == "":
			return st, noService(c.URL, path)
		}
		switch st.State {
		case pipeline.StateReported, pipeline.StateDelivered, pipeline.StateRefused:
			return st, nil
		case pipeline.StateFailed:
			if st.Life.Next.IsZero() { // else it is tried again
				return st, nil
			}
		case pipeline.StateHeld:
			if r := st.Record; r != nil && r.State == pipeline.StateHeld { // there is a report to look at
				return st, nil
			}
			return st, fmt.Errorf("%w: study %s is held: %s; chatxray jobs retry takes it up again", errServer, c.Study, st.Life.Reason)
		case pipeline.StateWithdrawn:
			return st, fmt.Errorf("%w: the reading of study %s is withdrawn, because an image that it is about was deleted", pipeline.ErrNotImage, c.Study)
		}
		if st.Record != nil && st.Record.State == pipeline.StateFailed {
			now += ", after " + st.Record.Error
		}
		if now != told {
			fmt.Fprintf(s.err, "study %s: %s\n", c.Study, now)
			told = now
		}
		if time.Now().After(end) {
			if err != nil {
				return st, err
			}
			return st, fmt.Errorf("%w: the study is still %s after %v; ask again later", errServer, st.State, c.Wait)
		}
		select {
		case <-ctx.Done():
			return st, ctx.Err()
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// fetch brings documents and picture into c.Out.
func (c showCmd) fetch(ctx context.Context, st pipeline.Status, rep *studyReport) error {
	var docs []pipeline.Document
	for _, ref := range st.Record.Documents {
		b, err := c.get(ctx, fmt.Sprintf("/studies/%s/series/%s/instances/%s", c.Study, ref.SeriesInstanceUID, ref.SOPInstanceUID), "application/dicom")
		if err != nil {
			return err
		}
		docs = append(docs, pipeline.Document{Kind: ref.Kind, SOPInstanceUID: ref.SOPInstanceUID, Bytes: b})
	}
	png, err := c.get(ctx, "/studies/"+c.Study+"/reading/image", "image/png")
	if err != nil {
		return err
	}
	if err := writeOut(c.Out, rep, png, docs); err != nil {
		return fmt.Errorf("writing to %s: %w", filepath.Clean(c.Out), err)
	}
	return nil
}

func (c showCmd) get(ctx context.Context, path, accept string) ([]byte, error) {
	return c.ask(ctx, http.MethodGet, c.URL, path, accept)
}

// ask sends a request without a body to a running service and returns what it answers.
func (f serverFlags) ask(ctx context.Context, method, service, path, accept string) ([]byte, error) {
	resp, err := f.open(ctx, method, service, path, accept)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, 256<<20))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errServer, err)
	}
	return b, nil
}

// open is ask for an answer of any length; its body is to be closed.
func (f serverFlags) open(ctx context.Context, method, service, path, accept string) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, strings.TrimRight(service, "/")+path, nil)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errServer, err)
	}
	req.Header.Set("Accept", accept)
	switch {
	case f.Token != "":
		req.Header.Set("Authorization", "Bearer "+f.Token.Reveal())
	case f.User != "":
		req.SetBasicAuth(f.User, f.password())
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, fmt.Errorf("%w: %s does not answer: %w", errServer, service, err)
	}
	if resp.StatusCode/100 == 2 {
		return resp, nil
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errServer, err)
	}
	var said struct{ Error string }
	_ = json.Unmarshal(b, &said) // another server's answer says nothing that we know
	refused := &refusal{error: fmt.Errorf("%w: %s answers %s", errServer, service, resp.Status)}
	switch {
	case said.Error != "" && resp.StatusCode == http.StatusNotFound && !strings.Contains(said.Error, pipeline.ErrNotFound.Error()): // no words of ours for what is not here
		refused.error = fmt.Errorf("%w: %.300q; %w", refused.error, said.Error, errElsewhere)
	case said.Error != "":
		refused.error = fmt.Errorf("%w: %.300q", refused.error, said.Error)
	case resp.StatusCode == http.StatusNotFound, resp.StatusCode == http.StatusMethodNotAllowed:
		refused.error = fmt.Errorf("%w at %s; %w", refused.error, path, errElsewhere)
	}
	switch resp.StatusCode {
	case http.StatusNotFound:
		refused.kind = pipeline.ErrNotFound
	case http.StatusConflict:
		refused.kind = pipeline.ErrConflict
	}
	return nil, refused
}

// errElsewhere is that there is no chatxray at an URL, or no such part of it: nothing comes of asking again.
var errElsewhere = errors.New("the URL must be the root of the DICOMweb service of a running chatxray, which ends in /dicom-web unless a proxy has moved it")

// noService is the error about a URL that answers, but not as the service does.
func noService(service, path string) error {
	return fmt.Errorf("%w: %s does not answer at %s as a chatxray does; %w", errServer, service, path, errElsewhere)
}

// order asks a running service to do something about a study. One that did so has answered with its UID: what answers anything to everything has done nothing.
func (f serverFlags) order(ctx context.Context, service, study, resource string) error {
	path := ofStudy(study, resource)
	b, err := f.ask(ctx, http.MethodPost, service, path, "application/json")
	if err != nil {
		return err
	}
	var did struct {
		Study string `json:"study_instance_uid"`
	}
	if err := json.Unmarshal(b, &did); err != nil || did.Study != study {
		return noService(service, path)
	}
	return nil
}

// refusal is an answer that is no success; kind is the house's error for it, where there is one.
type refusal struct {
	error
	kind error
}

// Unwrap returns both.
func (r *refusal) Unwrap() []error {
	if r.kind == nil {
		return []error{r.error}
	}
	return []error{r.error, r.kind}
}
