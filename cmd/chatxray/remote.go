package main

import (
	"context"
	"fmt"
	"time"

	"github.com/rs/zerolog"

	"chatxray/modelrt"
	"chatxray/pipeline/label"
)

// identifyWithin is how long a start waits for an endpoint to say what it serves.
const identifyWithin = 20 * time.Second

// openRemote opens a bundle of the kind remote and says where images go. An endpoint that does not answer yet is no reason not to start: studies are taken
// and kept, and read when it does.
func openRemote(ctx context.Context, log zerolog.Logger, dir string, options modelrt.Options) (*modelrt.Remote, error) {
	model, err := modelrt.OpenRemote(dir, options)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errBundle, err)
	}
	ref := model.Ref()
	told := log.Info().Str("model", ref.Name).Str("version", ref.Version).Str("endpoint", model.Where())
	if model.Bundle().Manifest.Remote.Images > 0 {
		told.Msg("the model is elsewhere: the pixels of images, and what is asked about them, are sent to the endpoint; nothing of a header is")
	} else {
		told.Msg("the model is elsewhere: texts are sent to the endpoint; it takes no images")
	}
	within, cancel := context.WithTimeout(ctx, identifyWithin)
	defer cancel()
	if serves, err := model.Identify(within); err != nil {
		log.Warn().Err(err).Msg("the model's endpoint does not say yet what it serves; what needs it waits or fails until it does")
	} else {
		log.Info().Str("serves", serves).Msg("the model's endpoint answers")
	}
	return model, nil
}

// askEndpoint is what doctor says about the endpoint of a bundle.
func askEndpoint(ctx context.Context, dir string) (string, error) {
	model, err := modelrt.OpenRemote(dir, modelrt.Options{Label: label.Report, Knows: label.Knows, Now: time.Now})
	if err != nil {
		return "", fmt.Errorf("%w: %w", errBundle, err)
	}
	defer model.Close()
	ctx, cancel := context.WithTimeout(ctx, identifyWithin)
	defer cancel()
	serves, err := model.Identify(ctx)
	if err != nil {
		return "", err
	}
	c := model.Bundle().Manifest.Remote
	takes := "takes no images"
	if c.Images > 0 {
		takes = "gets the pixels of images, no header"
	}
	return fmt.Sprintf("%s serves %s; it %s; evidence: %s", model.Where(), serves, takes, c.Evidence), nil
}
