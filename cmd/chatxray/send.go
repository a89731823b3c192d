package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"chatxray/pipeline"
	"chatxray/pipeline/deliver"
	"chatxray/pipeline/dicom"
)

// serverFlags say how a command shows a server who it is.
type serverFlags struct {
	User  string          `help:"User for HTTP Basic authentication; the password is taken from CHATXRAY_SEND_PASSWORD."`
	Token pipeline.Secret `env:"CHATXRAY_SEND_TOKEN" help:"Bearer token."`
}

func (f serverFlags) password() string { return os.Getenv("CHATXRAY_SEND_PASSWORD") }

type sendCmd struct {
	URL   string   `arg:"" help:"DICOMweb service root, for example http://127.0.0.1:8080/dicom-web."`
	Paths []string `arg:"" help:"DICOM files, or folders with DICOM files."`
	serverFlags
	Batch int `default:"20" help:"Files in one request."`
}

// Help is shown by chatxray send --help.
func (sendCmd) Help() string {
	return `Tells how many files the server has now, by study, and of each other one why not. A file that the server had before, with the same
content, counts as sent. A server whose certificate is of a private CA: name the CA's PEM file in SSL_CERT_FILE.`
}

// Run sends files in batches and tells how many the server took, and of which studies.
func (c sendCmd) Run(ctx context.Context, s streams) error {
	to, err := deliver.Open(deliver.Config{Name: c.URL, URL: c.URL, User: c.User, Token: c.Token, Password: pipeline.Secret(c.password()), ByHand: true})
	if err != nil {
		return fmt.Errorf("%w: %w", errUsage, err)
	}
	files, err := dicomFiles(c.Paths)
	if err != nil {
		return err
	}
	sent := 0
	var errs []error
	studies := map[string]int{}
	var order []string
batches:
	for batch := range slices.Chunk(files, max(1, c.Batch)) {
		docs, err := readFiles(batch, &errs)
		if err != nil {
			return err
		}
		if len(docs) == 0 {
			continue
		}
		var refused []string
		if err := to.Deliver(ctx, pipeline.Record{}, docs); err != nil {
			errs = append(errs, fmt.Errorf("%w: %w", errServer, err))
			var some *deliver.Refusal
			switch {
			case errors.As(err, &some):
				refused = slices.Clone(some.Instances)
			case errors.Is(err, deliver.Permanent):
				continue
			default:
				break batches // nobody there: the rest would fail as well
			}
		}
		for _, d := range docs {
			if i := slices.Index(refused, d.SOPInstanceUID); i >= 0 {
				refused = slices.Delete(refused, i, i+1) // two files may have one UID
				continue
			}
			sent++
			if studies[d.StudyInstanceUID]++; studies[d.StudyInstanceUID] == 1 {
				order = append(order, d.StudyInstanceUID)
			}
		}
		fmt.Fprintf(s.out, "sent %d of %d\n", sent, len(files))
	}
	for _, uid := range order {
		fmt.Fprintf(s.out, "study %s (%d sent)\n", uid, studies[uid])
	}
	return errors.Join(errs...)
}

// readFiles reads files that are to be sent. What is no DICOM object goes to errs.
func readFiles(paths []string, errs *[]error) (docs []pipeline.Document, err error) {
	for _, f := range paths {
		b, err := os.ReadFile(f)
		if err != nil {
			return nil, err
		}
		in, err := dicom.Peek(b)
		if err != nil {
			*errs = append(*errs, fmt.Errorf("%s is not sent: %w", f, err))
			continue
		}
		docs = append(docs, pipeline.Document{StudyInstanceUID: in.StudyInstanceUID, SOPInstanceUID: in.SOPInstanceUID, Bytes: b})
	}
	return docs, nil
}

// dicomFiles lists the DICOM files of paths; a folder without any is an error.
func dicomFiles(paths []string) ([]string, error) { return listFiles(paths, "DICOM", hasPreamble) }

// listFiles lists the files of paths. Files named outright are taken as they are, in folders only what is wanted; a folder without any
// is an error that says what kind was looked for.
func listFiles(paths []string, kind string, wanted func(path string) bool) ([]string, error) {
	var out []string
	for _, p := range paths {
		st, err := os.Stat(p)
		if err != nil {
			return nil, fmt.Errorf("%s: %w: no such file or folder", p, pipeline.ErrInvalid)
		}
		if !st.IsDir() {
			out = append(out, p)
			continue
		}
		n := len(out)
		err = filepath.WalkDir(p, func(path string, d os.DirEntry, err error) error {
			if err == nil && !d.IsDir() && wanted(path) {
				out = append(out, path)
			}
			return err
		})
		if err != nil {
			return nil, err
		}
		if len(out) == n {
			return nil, fmt.Errorf("%s: no %s file in this folder: %w", p, kind, pipeline.ErrInvalid)
		}
	}
	return out, nil
}

// hasPreamble tells whether a file begins as PS3.10 section 7.1 says: 128 bytes, then DICM.
func hasPreamble(path string) bool {
	f, err := os.Open(path)
	if err != nil {
		return false
	}
	defer f.Close()
	var head [132]byte
	n, _ := f.Read(head[:])
	return n == len(head) && bytes.Equal(head[128:], []byte("DICM"))
}
