package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strings"
)

// event is a line of `go test -json` (cmd/test2json), and of the build's output among them.
type event struct {
	Action     string
	Package    string
	ImportPath string // of build-output
	Test       string
	Output     string
}

// events calls f for each line. Lines that are no JSON (a tool's own words) become the output of no package.
func events(in io.Reader, f func(event, []byte)) error {
	r := bufio.NewReader(in)
	for {
		line, err := r.ReadBytes('\n')
		if len(line) > 0 {
			var e event
			if json.Unmarshal(line, &e) != nil {
				e = event{Action: "output", Output: string(line)}
			}
			f(e, line)
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// follow prints what a person wants to see while the tests run, and keeps every event.
func follow(in io.Reader, keep, out io.Writer) (ok bool, err error) {
	said := map[string]*strings.Builder{} // output of a test that has not ended
	var passed, failed, skipped, broken int
	var keepErr error
	err = events(in, func(e event, line []byte) {
		if _, err := keep.Write(line); err != nil {
			keepErr = err
		}
		key := e.Package + " " + e.Test
		switch e.Action {
		case "build-output":
			fmt.Fprint(out, e.Output)
		case "build-fail":
			broken++
		case "output":
			if e.Test == "" {
				if e.Output != "PASS\n" {
					fmt.Fprint(out, e.Output)
				}
				return
			}
			b := said[key]
			if b == nil {
				b = &strings.Builder{}
				said[key] = b
			}
			b.WriteString(e.Output)
		case "pass", "skip", "fail":
			if e.Test == "" {
				if e.Action == "fail" {
					broken++
					for k, b := range said { // a panic or a timeout ends tests without a word of their own
						if strings.HasPrefix(k, e.Package+" ") {
							fmt.Fprint(out, b)
							delete(said, k)
						}
					}
				}
				return
			}
			switch e.Action {
			case "pass":
				passed++
			case "skip":
				skipped++
			case "fail":
				failed++
				if b := said[key]; b != nil {
					fmt.Fprint(out, b)
				}
			}
			delete(said, key)
		}
	})
	fmt.Fprintf(out, "go: %d passed, %d failed, %d skipped\n", passed, failed, skipped)
	return failed == 0 && broken == 0, errors.Join(err, keepErr)
}

var where = regexp.MustCompile(`^\s*[\w.-]+\.go:\d+: `)

// goSkips finds the skipped tests of a kept `go test -json`, subtests included, with the reason they gave.
func goSkips(in io.Reader) ([]skip, error) {
	reasons := map[string]string{}
	var found []skip
	err := events(in, func(e event, _ []byte) {
		if e.Test == "" {
			return
		}
		key := e.Package + " " + e.Test
		switch {
		case e.Action == "output" && !strings.HasPrefix(e.Output, "=== ") && !strings.HasPrefix(strings.TrimSpace(e.Output), "--- "):
			reasons[key] += where.ReplaceAllString(e.Output, "")
		case e.Action == "skip":
			reason := strings.Join(strings.Fields(reasons[key]), " ")
			if reason == "" {
				reason = "no reason given"
			}
			found = append(found, skip{key, reason})
		case e.Action == "pass", e.Action == "fail":
			delete(reasons, key)
		}
	})
	return found, err
}
