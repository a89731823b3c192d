// Package config joins the packages' own Config structs into one YAML file: defaults are values, unknown keys and values that do not
// parse are errors, secrets come from the environment.
package config

import (
	"bytes"
	_ "embed"
	"errors"
	"fmt"
	"net"
	"strings"

	"github.com/goccy/go-yaml"

	"chatxray/dicomweb"
	"chatxray/modelrt"
	"chatxray/pipeline"
	"chatxray/pipeline/archive"
	"chatxray/pipeline/deliver"
	"chatxray/pipeline/jobs"
)

// Config is the configuration file. Example has every key with its default and what it does.
type Config struct {
	Listen       string              `yaml:"listen"`  // address of the HTTP server
	Data         string              `yaml:"data"`    // folder of the archive
	Station      string              `yaml:"station"` // Station Name in the documents
	Model        modelrt.Config      `yaml:"model"`
	DICOMweb     dicomweb.Config     `yaml:"dicomweb"`
	Archive      archive.Config      `yaml:"archive"`
	Jobs         jobs.Config         `yaml:"jobs"`
	Line         pipeline.LineConfig `yaml:"line"`
	Destinations []deliver.Config    `yaml:"destinations"`
}

// Example is a configuration file with every key.
//
//go:embed example.yaml
var Example []byte

// Default returns the configuration of a service that runs alone on this machine.
func Default() Config {
	return Config{Listen: "127.0.0.1:8080", Data: "chatxray-data", Station: "CHATXRAY", Model: modelrt.DefaultConfig(),
		DICOMweb: dicomweb.Default(), Archive: archive.DefaultConfig(), Jobs: jobs.Default(), Line: pipeline.DefaultLine()}
}

// Parse reads a configuration file over the defaults. Its error names the line that is wrong, and does not show it: secrets may stand there.
func Parse(b []byte) (Config, error) {
	c := Default()
	if len(bytes.TrimSpace(b)) == 0 {
		return c, nil
	}
	d := yaml.NewDecoder(bytes.NewReader(b), yaml.Strict(), yaml.DisallowUnknownField())
	if err := d.Decode(&c); err != nil {
		return c, fmt.Errorf("%w: %s", pipeline.ErrInvalid, strings.TrimSpace(yaml.FormatError(err, false, false)))
	}
	return c, nil
}

// Check returns everything that is wrong with the values, joined. It opens nothing.
func (c Config) Check() error {
	var errs []error
	add := func(err error) {
		if err != nil {
			errs = append(errs, err)
		}
	}
	if _, port, err := net.SplitHostPort(c.Listen); err != nil || port == "" {
		add(fmt.Errorf("listen: %q is not HOST:PORT, like 127.0.0.1:8080", c.Listen))
	}
	if c.Data == "" {
		add(errors.New("data: no folder is named"))
	}
	if len(c.Station) > 16 {
		add(fmt.Errorf("station: %q has more than the 16 characters of a Station Name", c.Station))
	}
	add(c.Model.Check())
	add(c.DICOMweb.Check())
	add(c.Archive.Check())
	add(c.Jobs.Check())
	add(c.Line.Check())
	names := map[string]bool{}
	for _, d := range c.Destinations {
		_, err := deliver.Open(d)
		add(err)
		if names[d.Name] {
			add(fmt.Errorf("destinations: two are named %q", d.Name))
		}
		names[d.Name] = true
	}
	return errors.Join(errs...)
}
