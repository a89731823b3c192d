package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"

	"chatxray/modelrt"
	"chatxray/pipeline"
)

type weighCmd struct{ placeFlags }

// Help is shown by chatxray weigh --help.
func (weighCmd) Help() string {
	return `Reads JSON lines {"images": [PATH, ...], "text": "..."} from standard input: DICOM, JPEG or PNG files, and a text in the form of the
model's reports, whoever wrote it. Prints for each line a JSON list: for each image the sentences with the evidence that they would have,
had the model written them about it. What the figures on planted sentences are made with (train/README.md).`
}

// weighed is one line of standard input.
type weighed struct {
	Images []string `json:"images"`
	Text   string   `json:"text"`
}

// Run weighs standard input.
func (c weighCmd) Run(ctx context.Context, s streams) error {
	eng, err := openEngine(ctx, s, c.placeFlags)
	if err != nil {
		return err
	}
	defer eng.Close()
	model, ok := eng.model.(*modelrt.Model)
	if !ok {
		return fmt.Errorf("%w: a model elsewhere does not weigh the texts of others", pipeline.ErrUnsupported)
	}
	in := bufio.NewScanner(s.in)
	in.Buffer(nil, 1<<20)
	enc := json.NewEncoder(s.out)
	for n := 1; in.Scan(); n++ {
		var w weighed
		if err := json.Unmarshal(in.Bytes(), &w); err != nil || len(w.Images) == 0 {
			return fmt.Errorf("line %d of standard input: %w: a JSON object with images and text is wanted (%v)", n, pipeline.ErrInvalid, err)
		}
		var images []*pipeline.Image
		for _, path := range w.Images {
			img, err := openImage(ctx, path)
			if err != nil {
				return fmt.Errorf("line %d of standard input: %s: %w", n, path, err)
			}
			images = append(images, img)
		}
		sentences, err := model.Weigh(ctx, images, w.Text)
		if err != nil {
			return fmt.Errorf("line %d of standard input: %w", n, err)
		}
		if err := enc.Encode(sentences); err != nil {
			return err
		}
	}
	return in.Err()
}
