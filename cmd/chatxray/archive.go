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
	Check     archiveCheckCmd `cmd:"" help:"Compare every file of an archive with its index; nothing is changed."`
	Rebuild   rebuildCmd      `cmd:"" help:"Make the index of an archive anew from its files."`
	Retention retentionCmd    `cmd:"" help:"Show which studies archive.retention lets go; nothing is deleted."`
}

// archiveFlags name an archive.
type archiveFlags struct {
	Config string `short:"c" help:"Configuration file, as of chatxray serve." placeholder:"FILE"`
	Data   string `help:"Folder of the archive. Default: chatxray-data." placeholder:"DIR"`
}

// configuration is that of the service whose archive is named.
func (f archiveFlags) configuration() (config.Config, error) {
	cfg := config.Default()
	if f.Config != "" {
		var err error
		if cfg, err = readConfig(f.Config); err != nil {
			return cfg, err
		}
		if err := cfg.Check(); err != nil {
			return cfg, fmt.Errorf("%w: %s: %w", errConfig, f.Config, err)
		}
	}
	if f.Data != "" {
		cfg.Data = f.Data
	}
	if _, err := os.Stat(filepath.Join(cfg.Data, "instances")); err != nil {
		return cfg, fmt.Errorf("%w: there is no archive in %s, it has no folder instances; name the archive's folder, or the service's configuration with --config", pipeline.ErrNotFound, cfg.Data)
	}
	return cfg, nil
}

type archiveCheckCmd struct{ archiveFlags }

// Help is shown by chatxray archive check --help.
func (archiveCheckCmd) Help() string {
	return `Sums up every file and compares it with the sha256 that the index has of it, and looks for index entries without file and files without
index entry. Each problem is told on standard error. It reads only, and the service may be running;
then a file of the last five minutes without index entry is not told, because it may be about to get one.

What helps: a file that is damaged or missing, put back from a backup; a missing one sent again as it was; a damaged one deleted (DELETE of its
instance) and sent again. A file without index entry: chatxray archive rebuild. Check before you rebuild: a rebuilt index takes the files as they are then.

Exit codes: 0 every file is as it was stored and in the index; 1 there is no archive, or no index that can be read; 3 problems were found; 6
the configuration is wrong; 130 interrupted.`
}

// Run checks an archive.
func (c archiveCheckCmd) Run(ctx context.Context, s streams) error {
	cfg, err := c.configuration()
	if err != nil {
		return err
	}
	opts := cfg.Archive.Options(func(_, path string, err error) { fmt.Fprintf(s.err, "%s: %v\n", path, err) })
	opts.Progress = s.now("files compared so far")
	found, err := archive.Check(ctx, cfg.Data, opts)
	switch {
	case errors.Is(err, context.Canceled), errors.Is(err, pipeline.ErrBusy):
		return err
	case err != nil:
		return fmt.Errorf("%w; chatxray archive rebuild makes an index anew", err)
	}
	fmt.Fprintf(s.out, "%s: %d files are as they were stored", cfg.Data, found.Whole)
	if found.Replaced > 0 {
		fmt.Fprintf(s.out, ", %d are earlier contents of instances and cannot be compared", found.Replaced)
	}
	fmt.Fprintf(s.out, "; %d damaged, %d missing, %d without index entry\n", found.Damaged, found.Missing, found.Stray)
	if n := found.Problems(); n > 0 {
		return fmt.Errorf("%w: the archive has %d problems, see above; chatxray archive check --help tells what helps", pipeline.ErrInvalid, n)
	}
	return nil
}

// now tells every ten seconds how far a command has come.
func (s streams) now(what string) func(instances int) {
	told := time.Now()
	return func(n int) {
		if time.Since(told) > 10*time.Second {
			told = time.Now()
			s.log.Info().Int("instances", n).Msg(what)
		}
	}
}

type rebuildCmd struct{ archiveFlags }

// Help is shown by chatxray archive rebuild --help.
func (rebuildCmd) Help() string {
	return `The files of an archive are the truth and its index, index.db or a PostgreSQL database (archive.index), is made from them. This makes it anew: after it was lost or damaged,
after files were put back from a backup, or to fill attributes that an earlier version did not keep. It reads every file once. Files
change nowhere; one that cannot be read is told and stays. No process of the service may be running on the archive. When it is broken off, the
next start of the service, or of this, goes on.

Exit codes: 0 every file is in the index; 1 the archive is open in another process, or is not there; 3 the index is made and some files
could not be entered, each of them told; 6 the configuration is wrong; 130 interrupted.`
}

// Run rebuilds an index.
func (c rebuildCmd) Run(ctx context.Context, s streams) error {
	cfg, err := c.configuration()
	if err != nil {
		return err
	}
	left := 0
	opts := cfg.Archive.Options(func(what, path string, err error) {
		left++
		fmt.Fprintf(s.err, "%s: %s: %v\n", path, what, err)
	})
	opts.Progress = s.now("entered so far")
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
