// Package deliver brings documents to their destinations. A kind of destination is one file that registers itself.
package deliver

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"chatxray/pipeline"
)

// Config is one entry of the section "destinations" of the configuration file.
type Config struct {
	Name string `yaml:"name"` // how logs and records call it; unique
	Kind string `yaml:"kind"` // stow (default), folder, webhook
	// URL is the root of a DICOMweb service, for example http://orthanc:8042/dicom-web (/studies is appended); of a webhook, what is posted to.
	URL      string          `yaml:"url"`
	User     string          `yaml:"user"`     // HTTP Basic, with password
	Password pipeline.Secret `yaml:"password"` // best as env:NAME
	Token    pipeline.Secret `yaml:"token"`    // Bearer token, best as env:NAME
	Secret   pipeline.Secret `yaml:"secret"`   // that a webhook is signed with: whsec_ and 24 to 64 bytes in base64
	Path     string          `yaml:"path"`     // folder that documents are written into; it must exist
	Layout   string          `yaml:"layout"`   // names of the files below path; default DefaultLayout
	Timeout  time.Duration   `yaml:"timeout"`  // of one attempt; default 30s
	Parallel int             `yaml:"parallel"` // studies that are delivered at the same time; default 4
	Rate     float64         `yaml:"rate"`     // studies a second, at most, by each process; 0 is no limit
	// Documents names what goes there (findings, narrative); empty: everything.
	Documents []pipeline.DocumentKind `yaml:"documents"`
	// ByHand is for somebody who sends files of others and reads the error: it quotes what the server says, and an instance that the
	// server calls a duplicate is refused, because it may have other content. Our documents never have.
	ByHand bool `yaml:"-"`
}

// Destination takes documents of a record. Errors: Permanent is not worth another attempt; pipeline.ErrUnavailable says nothing about these documents; any
// other is about them and may pass. How the other side worded a refusal is told by a method Answer of the error, and never by its text, which goes into logs.
type Destination interface {
	Deliver(ctx context.Context, rec pipeline.Record, docs []pipeline.Document) error
}

// Permanent marks a refusal that will not change by waiting.
var Permanent = errors.New("refused for good")

// Refusal is an error about some instances of a delivery; the destination has the others.
type Refusal struct {
	Instances []string // SOP Instance UIDs
	err       error
}

func (r *Refusal) Error() string { return r.err.Error() }

// Unwrap returns what the destination said.
func (r *Refusal) Unwrap() error { return r.err }

var kinds = map[string]func(Config) (Destination, error){}

func register(kind string, open func(Config) (Destination, error)) {
	if _, ok := kinds[kind]; ok {
		panic("deliver: kind " + kind + " registered twice")
	}
	kinds[kind] = open
}

// Open makes the destination that a configuration entry describes, and opens nothing yet; all that is wrong with the entry is one joined error.
func Open(c Config) (Destination, error) {
	c = c.filled()
	open, ok := kinds[c.Kind]
	if !ok {
		return nil, fmt.Errorf("destination %q: kind %q is not one of %s: %w", c.Name, c.Kind,
			strings.Join(slices.Sorted(maps.Keys(kinds)), ", "), pipeline.ErrInvalid)
	}
	var errs []error
	if c.Name == "" {
		errs = append(errs, errors.New("name is missing"))
	}
	if c.Parallel < 0 || c.Parallel > 64 {
		errs = append(errs, fmt.Errorf("parallel: %d is not between 1 and 64", c.Parallel))
	}
	if c.Timeout < 0 || c.Timeout > time.Hour {
		errs = append(errs, fmt.Errorf("timeout: %v is not between 0s and 1h", c.Timeout))
	}
	if !(c.Rate >= 0 && c.Rate <= 10000) {
		errs = append(errs, fmt.Errorf("rate: %g is not between 0 and 10000", c.Rate))
	}
	for _, k := range c.Documents {
		if k != pipeline.FindingsSR && k != pipeline.NarrativeSR {
			errs = append(errs, fmt.Errorf("documents: %q is not one of %s, %s", k, pipeline.FindingsSR, pipeline.NarrativeSR))
		}
	}
	for _, k := range []struct {
		key   string
		given bool
		kinds string
	}{
		{"url", c.URL != "", "stow webhook"}, {"user", c.User != "", "stow webhook"}, {"token", c.Token != "", "stow webhook"},
		{"secret", c.Secret != "", "webhook"}, {"path", c.Path != "", "folder"}, {"layout", c.Layout != "", "folder"},
	} {
		if k.given && !slices.Contains(strings.Fields(k.kinds), c.Kind) {
			errs = append(errs, fmt.Errorf("%s: means nothing to the kind %s", k.key, c.Kind))
		}
	}
	d, err := open(c)
	if err := errors.Join(append(errs, err)...); err != nil {
		return nil, fmt.Errorf("destination %q: %w", c.Name, err)
	}
	return d, nil
}

func (c Config) filled() Config {
	if c.Kind == "" {
		c.Kind = "stow"
	}
	if c.Timeout == 0 {
		c.Timeout = 30 * time.Second
	}
	return c
}

// Wanted keeps the documents that a destination asks for.
func (c Config) Wanted(docs []pipeline.Document) []pipeline.Document {
	if len(c.Documents) == 0 {
		return docs
	}
	return slices.DeleteFunc(slices.Clone(docs), func(d pipeline.Document) bool { return !slices.Contains(c.Documents, d.Kind) })
}
