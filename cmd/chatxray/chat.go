package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"

	"chatxray/dicomweb"
	"chatxray/pipeline"
	"chatxray/pipeline/archive"
)

// talking hands model and archive to the server's conversations.
func talking(eng *engine, arch *archive.Archive) dicomweb.Talking {
	return dicomweb.Talking{
		Chat:          eng.own,
		Adapters:      eng.named,
		Conversations: arch,
		Reference: func(ctx context.Context, study, series, sop string) (*pipeline.ChatImage, error) {
			return reference(ctx, eng.steps, arch, study, series, sop)
		},
	}
}

// reference finds the image of what is kept under UIDs: the one that a reading would take. Its content is that of all instances under them,
// so that another turn of a conversation opens no file.
func reference(ctx context.Context, steps pipeline.Steps, arch *archive.Archive, study, series, sop string) (*pipeline.ChatImage, error) {
	found, err := arch.Entries(ctx, study, series, sop)
	if err != nil {
		return nil, err
	}
	h := sha256.New()
	fmt.Fprintf(h, "%q %q %q\n", study, series, sop)
	for _, in := range found {
		fmt.Fprintln(h, in.SOPInstanceUID, in.Digest)
	}
	i := &pipeline.ChatImage{Name: "dicom:" + study, Content: pipeline.Digest(h.Sum(nil))}
	i.Load = func(ctx context.Context) (*pipeline.Image, error) {
		st, err := arch.Study(ctx, study)
		if err != nil {
			return nil, err
		}
		st.Instances = slices.DeleteFunc(st.Instances, func(in *pipeline.Instance) bool {
			return series != "" && in.SeriesInstanceUID != series || sop != "" && in.SOPInstanceUID != sop
		})
		return frontal(ctx, steps, st)
	}
	return i, nil
}

// frontal is the image of a study that a reading would take. Its error says why there is none.
func frontal(ctx context.Context, steps pipeline.Steps, st *pipeline.Study) (*pipeline.Image, error) {
	seen, err := steps.Look(ctx, st)
	if none := (*pipeline.NoImageError)(nil); errors.As(err, &none) {
		return nil, &pipeline.ChatError{Param: "messages", Code: "image_not_read", Err: err}
	}
	if err != nil {
		return nil, err
	}
	return seen.Image, nil
}
