package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"text/tabwriter"

	"chatxray/modelrt"
)

type bundlesCmd struct {
	List   bundlesListCmd   `cmd:"" default:"1" help:"List the bundles that are found."`
	Verify bundlesVerifyCmd `cmd:"" help:"Check every file, graph and shape of a bundle without running it."`
	Card   bundlesCardCmd   `cmd:"" help:"Print the model card of a bundle."`

	Quantize bundlesQuantizeCmd `cmd:"" help:"Write a bundle whose language model has 4 or 8 bits, and what that costs."`
}

type bundlesListCmd struct{}

// Run lists every bundle of the bundle folders.
func (bundlesListCmd) Run(s streams) error {
	w := tabwriter.NewWriter(s.out, 0, 8, 2, ' ', 0)
	seen := map[string]bool{}
	for _, d := range bundlesDirs() {
		found, _ := filepath.Glob(filepath.Join(d, "*", "manifest.json")) // the pattern is well-formed
		for _, f := range found {
			dir, err := filepath.Abs(filepath.Dir(f))
			if err != nil || seen[dir] {
				continue
			}
			if len(seen) == 0 {
				fmt.Fprintln(w, "NAME\tREVISION\tLICENCE\tFOLDER")
			}
			seen[dir] = true
			b, err := modelrt.OpenBundle(dir)
			if err != nil {
				fmt.Fprintf(w, "-\t-\t-\t%s: %v\n", dir, err)
				continue
			}
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", b.Manifest.Name, b.Manifest.Revision, b.Manifest.License, dir)
		}
	}
	if len(seen) == 0 {
		fmt.Fprintf(s.out, "There is no model bundle in %s. Set CHATXRAY_BUNDLES to a folder with bundles, each a folder in it, or give commands the folder of one with --bundle.\n",
			strings.Join(bundlesDirs(), ", "))
	}
	return w.Flush()
}

type bundlesVerifyCmd struct {
	Bundle []string `arg:"" optional:"" help:"Names or folders; default: the default bundle."`
}

// Run verifies bundles.
func (c bundlesVerifyCmd) Run(s streams) error {
	names := c.Bundle
	if len(names) == 0 {
		names = []string{defaultBundle}
	}
	var errs []error
	for _, n := range names {
		b, err := modelrt.Verify(bundleDir(n))
		if err != nil {
			errs = append(errs, bundleError(n, err))
			continue
		}
		fmt.Fprintf(s.out, "%s %s: %d files as the manifest says, sha256 of the manifest %s\n", b.Manifest.Name, b.Manifest.Revision, len(b.Manifest.Files), b.Digest)
		if base, err := b.BaseDigest(); err == nil {
			fmt.Fprintf(s.out, "  base_sha256 of its adapters: %s\n", base)
		}
	}
	return errors.Join(errs...)
}

type bundlesCardCmd struct {
	Bundle string `arg:"" optional:"" help:"Name or folder; default: the default bundle."`
}

// Run prints a model card.
func (c bundlesCardCmd) Run(s streams) error {
	b, err := modelrt.OpenBundle(bundleDir(c.Bundle))
	if err != nil {
		return bundleError(c.Bundle, err)
	}
	card, err := os.ReadFile(filepath.Join(b.Dir, "README.md"))
	if err != nil {
		return fmt.Errorf("%w: %s has no model card, which would be the file README.md of its folder: %w", errBundle, b.Manifest.Name, err)
	}
	_, err = s.out.Write(card)
	return err
}
