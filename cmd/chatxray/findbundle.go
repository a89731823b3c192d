package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"chatxray/pipeline"
)

const defaultBundle = "chatxray-base"

// bundlesDirs lists the folders in which bundles are looked for: $CHATXRAY_BUNDLES, beside the binary, the working directory, the
// system's share.
func bundlesDirs() []string {
	var dirs []string
	if d := os.Getenv("CHATXRAY_BUNDLES"); d != "" {
		dirs = append(dirs, d)
	}
	if exe, err := os.Executable(); err == nil {
		if exe, err = filepath.EvalSymlinks(exe); err == nil {
			dirs = append(dirs, filepath.Join(filepath.Dir(exe), "bundles"), filepath.Join(filepath.Dir(exe), "..", "bundles"))
		}
	}
	return append(dirs, "bundles", "/usr/share/chatxray/bundles")
}

// bundleDir finds a bundle by folder or by name; empty is the default bundle. It returns the name itself when there is none, so that
// the error names it.
func bundleDir(name string) string {
	if name == "" {
		name = defaultBundle
	}
	if _, err := os.Stat(filepath.Join(name, "manifest.json")); err == nil {
		return name
	}
	for _, d := range bundlesDirs() {
		if _, err := os.Stat(filepath.Join(d, name, "manifest.json")); err == nil {
			return filepath.Clean(filepath.Join(d, name))
		}
	}
	return name
}

// bundleError is what went wrong with a bundle that was asked for by a name. Of one that is not there it says where it was looked for.
func bundleError(name string, err error) error {
	if name == "" {
		name = defaultBundle
	}
	_, there := os.Stat(filepath.Join(bundleDir(name), "manifest.json"))
	if there == nil || !errors.Is(err, pipeline.ErrNotFound) {
		return fmt.Errorf("%w: %w", errBundle, err)
	}
	if filepath.IsAbs(name) {
		return fmt.Errorf("%w: %w; %s", errBundle, err, chooseBundle)
	}
	return fmt.Errorf("%w: %w; nor is there one called so in %s; %s", errBundle, err, strings.Join(bundlesDirs(), ", "), chooseBundle)
}

// chooseBundle says how bundles are found.
const chooseBundle = "give the folder of a bundle (--bundle, CHATXRAY_BUNDLE, model.bundle of the configuration), or its name and, in CHATXRAY_BUNDLES, the folder that it is in"
