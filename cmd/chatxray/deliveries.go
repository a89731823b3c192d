package main

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"slices"

	"chatxray/pipeline"
)

type deliveriesCmd struct {
	List  deliveriesListCmd  `cmd:"" help:"List documents that are not delivered, and which destinations are away."`
	Show  deliveriesShowCmd  `cmd:"" help:"Show what became of a study's documents at each destination, with what the destination said."`
	Retry deliveriesRetryCmd `cmd:"" help:"Take up the delivery of a study to a destination, or with --all every one that was given up."`
	Drop  deliveriesDropCmd  `cmd:"" help:"Give up the delivery of a study to a destination, or with --all every one that is not done. The documents stay in the archive."`
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
	Study       string `arg:"" optional:"" help:"Study Instance UID."`
	All         bool   `help:"In place of a study: every study."`
	Destination string `required:"" help:"Name of the destination." placeholder:"NAME"`
	serverFlags
}

// change does it to one study, or to all of which a delivery was given up (dead), or was not.
func (c deliveriesFlags) change(ctx context.Context, s streams, verb string, dead bool, said string) error {
	if (c.Study == "") != c.All {
		return fmt.Errorf("%w: name a study, or say --all for every study: one of the two", errUsage)
	}
	to := url.Values{"destination": {c.Destination}}
	one := func(study string) error {
		return c.order(ctx, c.URL, study, "/deliveries/"+verb+"?"+to.Encode())
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
	studies = slices.Compact(studies) // one may have two records
	done := 0
	for _, study := range studies {
		switch err := one(study); {
		case errors.Is(err, pipeline.ErrConflict): // it was delivered meanwhile, or somebody else has done it
		case err != nil:
			return fmt.Errorf("after %d of %d studies: %w", done, len(studies), err)
		default:
			done++
		}
	}
	which := "is on its way"
	if dead {
		which = "was given up"
	}
	switch done {
	case 0:
		fmt.Fprintf(s.err, "no delivery to %s %s: nothing was done\n", c.Destination, which)
	default:
		fmt.Fprintf(s.err, "deliveries of %d studies to %s: %s\n", done, c.Destination, said)
	}
	return nil
}

type deliveriesRetryCmd struct{ deliveriesFlags }

// Help is shown by chatxray deliveries retry --help.
func (deliveriesRetryCmd) Help() string {
	return `Of a study it takes a delivery that was given up or waits for its next attempt, else it is 409; --all takes those that were given up. The timeline
tells who asked.` + needsAdmin
}

// Run asks the service to deliver again.
func (c deliveriesRetryCmd) Run(ctx context.Context, s streams) error {
	return c.change(ctx, s, "retry", true, saysRetried)
}

type deliveriesDropCmd struct{ deliveriesFlags }

// Help is shown by chatxray deliveries drop --help.
func (deliveriesDropCmd) Help() string {
	return `Takes a delivery that is on its way or waits for its next attempt; one that is delivered or given up is 409. The timeline tells who dropped it; retry
takes it up again.` + needsAdmin
}

// Run asks the service to let it be.
func (c deliveriesDropCmd) Run(ctx context.Context, s streams) error {
	return c.change(ctx, s, "drop", false, saysDropped)
}
