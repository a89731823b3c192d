package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"chatxray/config"
	"chatxray/pipeline"
	"chatxray/pipeline/archive"
	"chatxray/pipeline/dicom"
)

type archiveCmd struct {
	Rebuild rebuildCmd `cmd:"" help:"Make the index of an archive anew from its files."`
}

type rebuildCmd struct {
	Config string `short:"c" help:"Configuration file, as of chatxray serve." placeholder:"FILE"`
	Data   string `help:"Folder of the archive. Default: chatxray-data." placeholder:"DIR"`
}

// Help is shown by chatxray archive rebuild --help.
func (rebuildCmd) Help() string {
	return `The files of an archive are the truth and its index, index.db, is made from them. This makes it anew: after index.db was lost or damaged,
after files were put back from a backup, or to fill attributes that an earlier version did not keep. It reads every file once. Files
change nowhere; one that cannot be read is told and stays. The service must not be running on the archive. When it is broken off, the
next start of the service, or of this, goes on.

Exit codes: 0 every file is in the index; 1 the archive is open in another process, or is not there; 3 the index is made and some files
could not be entered, each of them told; 6 the configuration is wrong; 130 interrupted.`
}

// Run rebuilds an index.
func (c rebuildCmd) Run(ctx context.Context, s streams) error {
	cfg := config.Default()
	if c.Config != "" {
		var err error
		if cfg, err = readConfig(c.Config); err == nil {
			err = cfg.Check()
		}
		if err != nil {
			return fmt.Errorf("%w: %w", errConfig, err)
		}
	}
	if c.Data != "" {
		cfg.Data = c.Data
	}
	if _, err := os.Stat(filepath.Join(cfg.Data, "instances")); err != nil {
		return fmt.Errorf("%w: there is no archive in %s, it has no folder instances; name the archive's folder with --data or --config", pipeline.ErrNotFound, cfg.Data)
	}
	left, told := 0, time.Now()
	opts := cfg.Archive.Options(func(what, path string, err error) {
		left++
		fmt.Fprintf(s.err, "%s: %s: %v\n", path, what, err)
	})
	opts.Progress = func(n int) {
		if time.Since(told) > 10*time.Second {
			told = time.Now()
			s.log.Info().Int("instances", n).Msg("entered so far")
		}
	}
	n, err := archive.Rebuild(ctx, cfg.Data, dicom.OpenFile, opts)
	switch {
	case errors.Is(err, pipeline.ErrBusy):
		return fmt.Errorf("the index cannot be rebuilt while a service uses it: %w", err)
	case err != nil:
		return err
	}
	fmt.Fprintf(s.out, "%d instances are in the index of %s\n", n, cfg.Data)
	if left > 0 {
		return fmt.Errorf("%w: %d files could not be entered, see above", pipeline.ErrInvalid, left)
	}
	return nil
}
