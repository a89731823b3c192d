// Command notices writes THIRD_PARTY_NOTICES.md to standard output: the Go modules that are compiled into the binary with the
// texts of their licences, and the run-time parts. It fails on a module whose licence it does not know, so that a new one is
// looked at by a person.
package main

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"chatxray/parts"
)

// module is a Go module of the build.
type module struct {
	path, version string
	licence       string   // SPDX identifier
	texts         []string // licence, then notices
}

func main() {
	if err := write(os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "notices:", err)
		os.Exit(1)
	}
}

func write(out io.Writer) error {
	mods, err := modules("./cmd/chatxray")
	if err != nil {
		return err
	}
	fmt.Fprint(out, `# Third-party notices

ChatXRay is licensed under Apache-2.0 (LICENSE). This file lists what others made and what the product contains or fetches.
`+"`make notices`"+` writes it anew; house_test.go fails while it is stale.

## Run-time parts

Fetched by package name, pinned in parts/parts.json; each package's licence text lies beside the part in the cache.

| part | package | licence | for |
|---|---|---|---|
`)
	for _, p := range parts.List() {
		fmt.Fprintf(out, "| %s | %s %s (%s) | %s | %s |\n", p.Name, p.Package, p.Version, registry(p.Kind), p.Licence, p.For)
	}
	fmt.Fprint(out, `
The default bundle (bundles/chatxray-base) holds weights that were trained here on top of two of them: EfficientNet-Lite0
(Apache-2.0) and SmolLM2-135M-Instruct (Apache-2.0), whose tokenizer it also holds. Its model card names the training data.

## Go modules of the binary

| module | version | licence |
|---|---|---|
`)
	for _, m := range mods {
		fmt.Fprintf(out, "| %s | %s | %s |\n", m.path, m.version, m.licence)
	}
	copied, err := os.ReadFile("modelrt/kernel/ort/LICENSE")
	if err != nil {
		return err
	}
	fmt.Fprintf(out, `
## Copied into the source

`+"`modelrt/kernel/ort/*.h`"+` are ONNX Runtime's C headers (MIT), unchanged as github.com/yalue/onnxruntime_go carries them.

`+"```text\n%s\n```\n", strings.TrimSpace(string(copied)))
	fmt.Fprint(out, "\n## Licence texts\n")
	for _, g := range byText(mods) {
		fmt.Fprintf(out, "\n### %s\n\n```text\n%s\n```\n", strings.Join(g.users, ", "), g.text)
	}
	return nil
}

func registry(kind string) string {
	return map[string]string{"pip": "PyPI", "npm": "npm"}[kind]
}

// modules lists the modules whose packages are linked into a command, on linux/amd64 and linux/arm64, plus Go's own library.
func modules(command string) ([]module, error) {
	dirs := map[string]string{} // "path version" -> folder
	for _, arch := range []string{"amd64", "arm64"} {
		cmd := exec.Command("go", "list", "-deps", "-json=Module,Standard", command)
		cmd.Env = append(os.Environ(), "GOOS=linux", "GOARCH="+arch, "CGO_ENABLED=1")
		cmd.Stderr = os.Stderr
		b, err := cmd.Output()
		if err != nil {
			return nil, fmt.Errorf("go list: %w", err)
		}
		for d := json.NewDecoder(bytes.NewReader(b)); ; {
			var p struct {
				Module *struct {
					Path, Version, Dir string
					Main               bool
				}
			}
			if err := d.Decode(&p); errors.Is(err, io.EOF) {
				break
			} else if err != nil {
				return nil, err
			}
			if m := p.Module; m != nil && !m.Main {
				dirs[m.Path+" "+m.Version] = m.Dir
			}
		}
	}
	root, err := exec.Command("go", "env", "GOROOT", "GOVERSION").Output()
	if err != nil {
		return nil, err
	}
	env := strings.Fields(string(root))
	dirs["Go standard library "+majorMinor(env[1])] = env[0]

	var mods []module
	for id, dir := range dirs {
		i := strings.LastIndexByte(id, ' ')
		m := module{path: id[:i], version: id[i+1:]}
		if m.licence, m.texts, err = licence(dir); err != nil {
			return nil, fmt.Errorf("%s: %w", id, err)
		}
		mods = append(mods, m)
	}
	slices.SortFunc(mods, func(a, b module) int { return cmp.Compare(a.path, b.path) })
	return mods, nil
}

// majorMinor cuts the patch release off, which the machine at hand decides: go1.26.8 is go1.26.
func majorMinor(v string) string { return strings.Join(strings.SplitN(v, ".", 3)[:2], ".") }

var licenceFile = regexp.MustCompile(`(?i)^(sqlite-)?(licen[cs]e|copying|notice|unlicense)([-.].*)?$`)

// licence reads the licence texts at the top of a module.
func licence(dir string) (spdx string, texts []string, err error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return "", nil, err
	}
	for _, e := range entries {
		if e.IsDir() || !licenceFile.MatchString(e.Name()) || strings.HasSuffix(e.Name(), ".go") {
			continue
		}
		b, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			return "", nil, err
		}
		text := strings.TrimSpace(strings.ReplaceAll(string(b), "\r\n", "\n"))
		if spdx == "" {
			spdx = identify(text)
		}
		texts = append(texts, text)
	}
	if spdx == "" {
		return "", nil, fmt.Errorf("no licence that is known here in %s: look at it, then extend identify", dir)
	}
	return spdx, texts, nil
}

// identify names the licences that this project accepts by phrases of their texts.
func identify(text string) string {
	text = strings.Join(strings.Fields(text), " ")
	has := func(s string) bool { return strings.Contains(text, s) }
	switch {
	case has("Apache License") && has("Version 2.0"):
		return "Apache-2.0"
	case has("Mozilla Public License") && has("2.0"):
		return "MPL-2.0"
	case has("Permission is hereby granted, free of charge"):
		return "MIT"
	case has("Redistribution and use in source and binary forms") && (has("Neither the name") || has("may not be used to endorse") || has("names of its contributors")):
		return "BSD-3-Clause"
	case has("Redistribution and use in source and binary forms"):
		return "BSD-2-Clause"
	case has("Permission to use, copy, modify, and/or distribute") || has("Permission to use, copy, modify, and distribute"):
		return "ISC"
	case has("This is free and unencumbered software released into the public domain"):
		return "Unlicense"
	}
	return ""
}

// group is one text and the modules that carry it.
type group struct {
	text  string
	users []string
}

func byText(mods []module) []group {
	var groups []group
	at := map[string]int{}
	for _, m := range mods {
		for _, text := range m.texts {
			i, ok := at[text]
			if !ok {
				i = len(groups)
				at[text] = i
				groups = append(groups, group{text: text})
			}
			if !slices.Contains(groups[i].users, m.path) {
				groups[i].users = append(groups[i].users, m.path)
			}
		}
	}
	return groups
}
