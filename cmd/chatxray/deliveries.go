package main

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
)

type deliveriesCmd struct {
	List  deliveriesListCmd  `cmd:"" help:"List documents that are not delivered, and which destinations are away."`
	Show  deliveriesShowCmd  `cmd:"" help:"Show what became of a study's documents at each destination, with what the destination said."`
	Retry deliveriesRetryCmd `cmd:"" help:"Take up deliveries to a destination that were given up: of a study, or all of them."`
	Drop  deliveriesDropCmd  `cmd:"" help:"Give up deliveries to a destination: of a study, or all of them. The documents stay in the archive."`
}

type deliveriesListCmd struct {
	Destination string `help:"Only those to it." placeholder:"NAME"`
	tasksFlags
}

// Run prints page after page.
func (c deliveriesListCmd) Run(ctx context.Context, s streams) error {
	query := url.Values{}
	if c.Destination != "" {
		query.Set("destination", c.Destination)
	}
	return c.list(ctx, s, "/deliveries", query)
}

type deliveriesShowCmd struct{ studyFlags }

// Run prints the deliveries of a study.
func (c deliveriesShowCmd) Run(ctx context.Context, s streams) error {
	return c.show(ctx, s, "/deliveries")
}

type deliveriesFlags struct {
	URL         string `arg:"" help:"DICOMweb service root of a running chatxray."`
	Study       string `arg:"" optional:"" help:"Study Instance UID; without one, every study of which a delivery to the destination is not done."`
	Destination string `required:"" help:"Name of the destination." placeholder:"NAME"`
	serverFlags
}

// change does it to one study, or to all of which a delivery was given up (dead), or was not.
func (c deliveriesFlags) change(ctx context.Context, s streams, verb string, dead bool, said string) error {
	to := url.Values{"destination": {c.Destination}}
	one := func(study string) error {
		_, err := c.ask(ctx, http.MethodPost, c.URL, ofStudy(study, "/deliveries/"+verb+"?"+to.Encode()), "application/json")
		return err
	}
	if c.Study != "" {
		if err := one(c.Study); err != nil {
			return err
		}
		fmt.Fprintln(s.err, said)
		return nil
	}
	var studies []string
	f := tasksFlags{URL: c.URL, Dead: dead, serverFlags: c.serverFlags}
	if err := f.pages(ctx, "/deliveries", to, func(page tasks) error {
		for _, t := range page.Deliveries {
			if t.Dead == dead {
				studies = append(studies, t.StudyInstanceUID)
			}
		}
		return nil
	}); err != nil {
		return err
	}
	for i, study := range studies {
		if i > 0 && studies[i-1] == study { // of two records
			continue
		}
		if err := one(study); err != nil {
			return fmt.Errorf("after %d of %d studies: %w", i, len(studies), err)
		}
	}
	fmt.Fprintf(s.err, "%d deliveries: %s\n", len(studies), said)
	return nil
}

type deliveriesRetryCmd struct{ deliveriesFlags }

// Run asks the service to deliver again.
func (c deliveriesRetryCmd) Run(ctx context.Context, s streams) error {
	return c.change(ctx, s, "retry", true, saysRetried)
}

type deliveriesDropCmd struct{ deliveriesFlags }

// Run asks the service to let it be.
func (c deliveriesDropCmd) Run(ctx context.Context, s streams) error {
	return c.change(ctx, s, "drop", false, saysDropped)
}
