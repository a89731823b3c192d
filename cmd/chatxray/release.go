package main

import (
	"context"
	"fmt"
)

type releaseCmd struct {
	URL   string `arg:"" help:"DICOMweb service root of a running chatxray, for example http://127.0.0.1:8080/dicom-web."`
	Study string `arg:"" help:"Study Instance UID."`
	serverFlags
}

// Help is shown by chatxray release --help.
func (releaseCmd) Help() string {
	return `With model.evidence.policy: hold a report with flagged sentences waits until somebody has looked at it (chatxray show). Released, it is
written as DICOM SR, flags and all, and delivered. Where the service knows roles this needs admin.`
}

// Run releases the report.
func (c releaseCmd) Run(ctx context.Context, s streams) error {
	if err := c.order(ctx, c.URL, c.Study, "/reading/release"); err != nil {
		return err
	}
	fmt.Fprintf(s.out, "study %s: released\n", c.Study)
	return nil
}
