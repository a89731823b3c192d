// Package config joins the packages' own Config structs into one YAML file: defaults are values, unknown keys and values that do not
// parse are errors, secrets come from the environment.
package config

import (
	"bytes"
	_ "embed"
	"errors"
	"fmt"
	"net"
	"reflect"
	"strings"
	"time"

	"github.com/goccy/go-yaml"

	"chatxray/dicomweb"
	"chatxray/modelrt"
	"chatxray/pipeline"
	"chatxray/pipeline/archive"
	"chatxray/pipeline/deliver"
	"chatxray/pipeline/jobs"
	"chatxray/pipeline/rules"
)

// Config is the configuration file. Example has every key with its default and what it does.
type Config struct {
	Listen       string              `yaml:"listen"`     // address of the HTTP server
	Data         string              `yaml:"data"`       // folder of the archive
	Role         Role                `yaml:"role"`       // what this process does of the service
	WorkerURL    string              `yaml:"worker_url"` // of a web: the worker that answers what needs the model
	Station      string              `yaml:"station"`    // Station Name in the documents
	Timezone     string              `yaml:"timezone"`   // of the study times that have no offset: an IANA name, or Local
	Model        modelrt.Config      `yaml:"model"`
	DICOMweb     dicomweb.Config     `yaml:"dicomweb"`
	Archive      archive.Config      `yaml:"archive"`
	Jobs         jobs.Config         `yaml:"jobs"`
	Line         pipeline.LineConfig `yaml:"line"`
	Complete     rules.Config        `yaml:"complete"`
	Destinations []deliver.Config    `yaml:"destinations"`
}

// Example is a configuration file with every key.
//
//go:embed example.yaml
var Example []byte

// Default returns the configuration of a service that runs alone on this machine.
func Default() Config {
	return Config{Listen: "127.0.0.1:8080", Data: "chatxray-data", Role: RoleAll, Station: "CHATXRAY", Timezone: "Local", Model: modelrt.DefaultConfig(),
		DICOMweb: dicomweb.Default(), Archive: archive.DefaultConfig(), Jobs: jobs.Default(), Line: pipeline.DefaultLine(), Complete: rules.Default()}
}

// Parse reads a configuration file over the defaults. Its error names the line that is wrong, and does not show it: secrets may stand there.
func Parse(b []byte) (Config, error) {
	c := Default()
	if len(bytes.TrimSpace(b)) == 0 {
		return c, nil
	}
	d := yaml.NewDecoder(bytes.NewReader(b), yaml.Strict(), yaml.DisallowUnknownField())
	if err := d.Decode(&c); err != nil {
		var wrong *yaml.TypeError
		if errors.As(err, &wrong) && wrong.Token != nil {
			at := wrong.Token.Position
			return c, fmt.Errorf("%w: [%d:%d] here belongs %s", pipeline.ErrInvalid, at.Line, at.Column, kindOf(wrong.DstType))
		}
		return c, fmt.Errorf("%w: %s", pipeline.ErrInvalid, strings.TrimSpace(yaml.FormatError(err, false, false)))
	}
	return c, nil
}

// kindOf says in words what a value has to be.
func kindOf(t reflect.Type) string {
	if t == reflect.TypeFor[time.Duration]() {
		return "a duration with its unit, like 30s, 5m or 72h"
	}
	switch t.Kind() {
	case reflect.Bool:
		return "true or false"
	case reflect.String:
		return "text"
	case reflect.Slice:
		return "a list"
	case reflect.Struct, reflect.Map:
		return "a section with keys of its own"
	}
	return "a number"
}

// Zone returns the time zone of the documents; the configuration must have passed Check.
func (c Config) Zone() *time.Location {
	zone, err := time.LoadLocation(c.Timezone)
	if err != nil {
		return time.Local
	}
	return zone
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
	if _, err := time.LoadLocation(c.Timezone); err != nil || c.Timezone == "" {
		add(fmt.Errorf("timezone: %q is neither a name like Europe/Berlin nor Local", c.Timezone))
	}
	add(c.checkRole())
	add(c.Model.Check())
	add(c.DICOMweb.Check())
	add(c.Archive.Check())
	add(c.Jobs.Check())
	add(c.Line.Check())
	add(c.Complete.Check())
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
