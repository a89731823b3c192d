package main

import (
	"archive/zip"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"strings"

	"chatxray/pipeline"
	"chatxray/pipeline/archive"
	"chatxray/pipeline/dicom"
)

type studiesExportCmd struct {
	From   string `arg:"" help:"DICOMweb service root of a running chatxray, or the folder of an archive."`
	Study  string `arg:"" help:"Study Instance UID."`
	To     string `required:"" help:"Folder, which must not be there or be empty, or FILE.zip, which must not be there." placeholder:"DIR|FILE.zip"`
	Config string `short:"c" help:"Configuration file of the service, for a folder whose files are in S3." placeholder:"FILE"`
	serverFlags
}

// Help is shown by chatxray studies export --help.
func (studiesExportCmd) Help() string {
	return `Writes DICOM files as they are stored, byte for byte, without a DICOMDIR, and JSON:

  instances/SERIES/SOP.dcm   received
  documents/SERIES/SOP.dcm   written by this product, drafts
  records.json               what the line knows of each reading
  timeline.json              every step of the study's life
  conversations.json         what was asked and answered about it

All of it is patient data. There is the whole export or nothing: while it is written it is called .part at its end.

Exit codes: 0 written; 1 the study is not there, or the export cannot be written; 2 wrong usage; 6 the configuration is wrong; 7 the service, or
S3, does not answer as it should; 130 interrupted.`
}

// Run exports a study.
func (c studiesExportCmd) Run(ctx context.Context, s streams) error {
	if !pipeline.ValidUID(c.Study) {
		return fmt.Errorf("%w: %q is no Study Instance UID", errUsage, c.Study)
	}
	to, err := newExport(c.To)
	if err != nil {
		return err
	}
	defer to.abandon()
	if strings.HasPrefix(c.From, "http://") || strings.HasPrefix(c.From, "https://") {
		err = c.fromService(ctx, to)
	} else {
		err = c.fromFolder(ctx, to)
	}
	if err == nil {
		err = to.done()
	}
	if err != nil {
		return err
	}
	fmt.Fprintf(s.out, "%s: %d instances, %d documents\n", c.To, to.instances, to.documents)
	return nil
}

// fromFolder exports out of an archive's folder.
func (c studiesExportCmd) fromFolder(ctx context.Context, to *export) error {
	cfg, err := archiveFlags{Config: c.Config, Data: c.From}.configuration()
	if errors.Is(err, pipeline.ErrNotFound) {
		return fmt.Errorf("%w, or the http(s) URL of a running service", err)
	}
	if err != nil {
		return err
	}
	return archive.View(ctx, cfg.Data, cfg.Archive.Options(nil), func(a *archive.Archive) error {
		found, err := a.Entries(ctx, c.Study, "", "")
		if err != nil {
			return err
		}
		for _, in := range found {
			own, err := a.Own(ctx, in)
			if err != nil {
				return err
			}
			r, err := a.Content(ctx, in)
			if err != nil {
				return fmt.Errorf("instance %s: %w", in.SOPInstanceUID, err)
			}
			err = to.instance(in, own, r)
			r.Close()
			if err != nil {
				return err
			}
		}
		life, err := a.Life(ctx, c.Study)
		if err != nil && !errors.Is(err, pipeline.ErrNotFound) {
			return err
		}
		steps, err := a.Changes(ctx, c.Study)
		if err != nil {
			return err
		}
		records, err := a.Records(ctx, c.Study)
		if err != nil {
			return err
		}
		said, err := a.Conversations(ctx, c.Study)
		if err != nil {
			return err
		}
		return errors.Join(
			to.json("records.json", map[string]any{"study_instance_uid": c.Study, "records": append([]pipeline.Record{}, records...)}),
			to.json("timeline.json", map[string]any{"study_instance_uid": c.Study, "state": life.State, "steps": append([]pipeline.Change{}, steps...)}),
			to.json("conversations.json", map[string]any{"study_instance_uid": c.Study, "conversations": append([]pipeline.Conversation{}, said...)}))
	})
}

// fromService exports over HTTP.
func (c studiesExportCmd) fromService(ctx context.Context, to *export) error {
	at := "/studies/" + url.PathEscape(c.Study)
	said := map[string][]byte{}
	for name, resource := range map[string]string{"records.json": "/reading/records", "timeline.json": "/reading/timeline", "conversations.json": "/conversations"} {
		b, err := c.ask(ctx, http.MethodGet, c.From, at+resource, "application/json")
		if errors.Is(err, pipeline.ErrNotFound) && resource == "/conversations" { // a service that nobody can ask
			continue
		}
		if err != nil {
			return err
		}
		said[name] = b
	}
	var records struct{ Records []pipeline.Record }
	if err := json.Unmarshal(said["records.json"], &records); err != nil {
		return fmt.Errorf("%w: %s answers what are no records: %w", errServer, c.From, err)
	}
	own := map[string]bool{}
	for _, r := range records.Records {
		for _, d := range r.Documents {
			own[d.SOPInstanceUID] = true
		}
	}
	resp, err := c.open(ctx, http.MethodGet, c.From, at, `multipart/related; type="application/dicom"; transfer-syntax=*`)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	_, params, err := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	if err != nil {
		return fmt.Errorf("%w: %s answers what is no multipart body", errServer, c.From)
	}
	parts := multipart.NewReader(resp.Body, params["boundary"])
	for {
		p, err := parts.NextRawPart()
		if err == io.EOF {
			break
		}
		if err == nil {
			err = to.staged(p, own)
		}
		if err != nil {
			return fmt.Errorf("%w: %s broke off, or sent no DICOM: %w", errServer, c.From, err)
		}
	}
	for name, b := range said {
		var indented bytes.Buffer
		if err := json.Indent(&indented, b, "", " "); err != nil {
			return fmt.Errorf("%w: %s answers what is no JSON", errServer, c.From)
		}
		if err := to.file(name, &indented); err != nil {
			return err
		}
	}
	return nil
}

// export is a folder or a ZIP file that is being written, under its name with .part behind until it is whole.
type export struct {
	to, part             string
	zip                  *zip.Writer // or nil
	out                  *os.File    // of zip
	instances, documents int
}

func newExport(to string) (*export, error) {
	to = filepath.Clean(to)
	e := &export{to: to, part: to + ".part"}
	left, err := os.ReadDir(to)
	isZip := strings.EqualFold(filepath.Ext(to), ".zip")
	switch {
	case err == nil && isZip, err == nil && len(left) > 0:
		return nil, fmt.Errorf("%w: %s is there already, and not empty", errUsage, to)
	case err != nil && !errors.Is(err, os.ErrNotExist):
		return nil, fmt.Errorf("%w: %s is there already", errUsage, to)
	}
	if !isZip {
		return e, os.Mkdir(e.part, 0o700)
	}
	if e.out, err = os.OpenFile(e.part, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600); err != nil {
		return nil, err
	}
	e.zip = zip.NewWriter(e.out)
	return e, nil
}

// file writes one file; name has slashes.
func (e *export) file(name string, r io.Reader) error {
	if e.zip != nil {
		w, err := e.zip.Create(name)
		if err == nil {
			_, err = io.Copy(w, r)
		}
		return err
	}
	at := filepath.Join(e.part, filepath.FromSlash(name))
	if err := os.MkdirAll(filepath.Dir(at), 0o700); err != nil {
		return err
	}
	f, err := os.OpenFile(at, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, r)
	return errors.Join(err, f.Sync(), f.Close())
}

func (e *export) json(name string, v any) error {
	b, err := json.MarshalIndent(v, "", " ")
	if err != nil {
		return err
	}
	return e.file(name, bytes.NewReader(b))
}

func (e *export) instance(in *pipeline.Instance, own bool, r io.Reader) error {
	tree := "instances"
	if e.instances++; own {
		tree = "documents"
		e.instances--
		e.documents++
	}
	return e.file(path.Join(tree, in.SeriesInstanceUID, in.SOPInstanceUID+".dcm"), r)
}

// staged writes an instance whose UIDs are only in its bytes.
func (e *export) staged(r io.Reader, own map[string]bool) error {
	f, err := os.CreateTemp(filepath.Dir(e.part), ".export*.dcm")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	defer f.Close()
	if _, err := io.Copy(f, r); err != nil {
		return err
	}
	in, err := dicom.OpenHeader(f.Name())
	if err == nil {
		_, err = f.Seek(0, io.SeekStart)
	}
	if err != nil {
		return err
	}
	return e.instance(in, own[in.SOPInstanceUID], f)
}

// done gives the export its name.
func (e *export) done() error {
	if e.zip != nil {
		if err := errors.Join(e.zip.Close(), e.out.Sync()); err != nil {
			return err
		}
	} else if err := os.Remove(e.to); err != nil && !errors.Is(err, os.ErrNotExist) { // an empty folder
		return err
	}
	return os.Rename(e.part, e.to)
}

// abandon removes what was not done.
func (e *export) abandon() {
	if e.out != nil {
		_ = e.out.Close()
	}
	_ = os.RemoveAll(e.part)
}
