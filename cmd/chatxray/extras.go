package main

import (
	"context"
	"errors"
	"fmt"

	"chatxray/modelrt"
)

// extra is what may be asked for beside a report, and can fail without it.
type extra string

const (
	extraPlain   extra = "plain"
	extraOpinion extra = "second_opinion"
	extraPreview extra = "preview"
	extraHeat    extra = "heat_maps"
	extraFiles   extra = "files" // of --out
)

var extraNames = map[extra]string{extraPlain: "words for the patient", extraOpinion: "second opinion", extraPreview: "picture that the model saw", extraHeat: "heat maps", extraFiles: "files"}

// notMade notes that an extra failed, where it did, and returns err with the name of it.
func (r *studyReport) notMade(ctx context.Context, e extra, err error) error {
	if err == nil {
		return nil
	}
	if r.NotMade == nil {
		r.NotMade = map[extra]string{}
	}
	if r.NotMade[e] = err.Error(); ctx.Err() != nil {
		r.NotMade[e] = "interrupted"
	}
	return fmt.Errorf("%s: %w", extraNames[e], err)
}

// possible says what of the options can never be done, before anything is loaded or read. What is wrong with the bundle or the language itself is told
// where they are used.
func (c reportCmd) possible() error {
	b, err := modelrt.OpenBundle(bundleDir(c.Bundle))
	if err != nil {
		return nil
	}
	language, err := b.Manifest.Language(c.Language)
	if err != nil {
		return nil
	}
	var faults []error
	cannot := func(e extra, err error) {
		if err != nil {
			faults = append(faults, fmt.Errorf("%s: %w", extraNames[e], err))
		}
	}
	if err := b.Manifest.CanRead(); err != nil {
		return err
	}
	if c.wanted() {
		cannot(extraHeat, b.Manifest.CanHeat())
	}
	if c.Plain {
		cannot(extraPlain, canPlain(b.Manifest, language))
	}
	if c.SecondOpinion != "" {
		second, err := modelrt.OpenBundle(bundleDir(c.SecondOpinion))
		if err != nil {
			err = bundleError(c.SecondOpinion, err)
		} else {
			err = second.Manifest.CanOpine(language)
		}
		cannot(extraOpinion, err)
	}
	return errors.Join(faults...)
}
