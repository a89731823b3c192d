package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"text/tabwriter"

	"chatxray/config"
	"chatxray/modelrt"
	"chatxray/parts"
	"chatxray/pipeline/archive"
	"chatxray/pipeline/jobs"
)

type checkCmd struct {
	Config  string `short:"c" help:"Configuration file to check." placeholder:"FILE" xor:"what"`
	Example bool   `help:"Print an example with every key instead." xor:"what"`
}

// Run checks a configuration file.
func (c checkCmd) Run(s streams) error {
	if c.Example {
		_, err := s.out.Write(config.Example)
		return err
	}
	if c.Config == "" {
		return fmt.Errorf("%w: give a file with --config FILE, or --example", errUsage)
	}
	cfg, err := readConfig(c.Config)
	if err != nil {
		return err
	}
	if err := cfg.Check(); err != nil {
		return fmt.Errorf("%w: %s: %w", errConfig, c.Config, err)
	}
	fmt.Fprintf(s.out, "%s is good\n", c.Config)
	return nil
}

type doctorCmd struct {
	Config string `short:"c" help:"Configuration file of the service to examine." placeholder:"FILE"`
	placeFlags
}

// Run examines, part by part, whether the service would start. It fails when it would not.
func (c doctorCmd) Run(ctx context.Context, s streams) error {
	w := tabwriter.NewWriter(s.out, 0, 8, 2, ' ', 0)
	var worst error
	tell := func(what string, err error, good string) {
		if err != nil {
			worst = errors.Join(worst, err)
			good = "NO: " + err.Error()
		}
		fmt.Fprintf(w, "%s\t%s\n", what, good)
	}
	cfg, err := serveCmd{Config: c.Config, modelFlags: modelFlags{placeFlags: c.placeFlags}}.config()
	tell("configuration", err, "good")
	if err == nil {
		door, err := openDoor(cfg.DICOMweb, s.log)
		tell("listen", errors.Join(err, cfg.DICOMweb.CheckListen(cfg.Listen)), door.describe(ctx, cfg))
		door.Close()
		folder, err := filepath.Abs(cfg.Data)
		tell("archive", errors.Join(err, archive.Usable(cfg.Data, cfg.Archive.Options(nil))), folder)
		if cfg.Archive.Index != "" {
			said, err := archive.Examine(ctx, cfg.Archive.Index)
			tell("index", err, said)
		}
		bundle, bundleErr := modelrt.Verify(bundleDir(cfg.Model.Bundle))
		elsewhere := bundleErr == nil && bundle.Manifest.Kind == modelrt.KindRemote
		if elsewhere {
			tell("ONNX Runtime", nil, "not needed: the model is elsewhere")
		} else {
			runtime, err := startRuntime(s.log, cfg.Model.Wanted())
			if err != nil {
				tell("ONNX Runtime", err, "")
			} else {
				tell("ONNX Runtime", nil, runtime.Version()+" on "+string(runtime.Device()))
			}
			tellCUDA(func(what, found string) { tell(what, nil, found) }, runtime, cfg.Model.Device)
		}
		codecs, err := parts.Path("dcmjs-codecs")
		tell("codecs", err, codecs)
		if bundleErr != nil {
			tell("model bundle", bundleError(cfg.Model.Bundle, bundleErr), "")
		} else {
			tell("model bundle", nil, fmt.Sprintf("%s %s, every file as its manifest says", bundle.Manifest.Name, bundle.Manifest.Revision))
		}
		if elsewhere {
			said, err := askEndpoint(ctx, bundle.Dir)
			tell("model endpoint", err, said)
		} else if bundleErr == nil && bundle.Manifest.Base.Part != "" {
			base, err := parts.Path(bundle.Manifest.Base.Part)
			tell("base model", err, base)
		}
		claims, err := jobs.Open(ctx, cfg.Jobs)
		if err == nil {
			err = claims.Close()
		}
		where := "inside the process"
		if cfg.Jobs.Redis != "" {
			where = "the configured server answers"
		}
		tell("Redis", err, where)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	if worst != nil {
		return fmt.Errorf("%w%w", errQuiet, worst)
	}
	return nil
}
