// Command overhead measures what the service adds to the model: from study complete to SR stored, minus the time inside ONNX
// Runtime, for objects of several transfer syntaxes and step by step. It starts bin/chatxray serve with everything embedded, sends one
// study after another and asks for its record; the steps are what the service logs at the level debug.
//
//	go run ./bench/overhead                                        ten phantoms of each transfer syntax
//	go run ./bench/overhead -quiet 0s                              the same, read as soon as they are there: nothing is done ahead
//	go run ./bench/overhead -syntax explicit,jpeg-ls -n 20 -file object.dcm
//	go run ./bench/overhead -against other/chatxray               a second binary in turn, for a comparison in one run
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

type options struct {
	bin, against string
	n, rows      int
	quiet        time.Duration
	kinds        []kind
}

// kind is what is sent: phantoms of a transfer syntax, or copies of a file.
type kind struct {
	name string
	make func(path string, i int) (study string, err error) // writes the ith object
}

func main() {
	var o options
	flag.StringVar(&o.bin, "bin", "bin/chatxray", "the binary")
	flag.StringVar(&o.against, "against", "", "another binary, which gets the same objects; empty: none")
	flag.IntVar(&o.n, "n", 10, "studies of each kind")
	flag.IntVar(&o.rows, "rows", 2500, "rows of the phantoms; columns are in proportion")
	flag.DurationVar(&o.quiet, "quiet", 5*time.Second, "line.quiet of the service")
	syntaxes := flag.String("syntax", "explicit,deflated,rle,jpeg,jpeg-lossless,jpeg-ls,jpeg2000,htj2k", "transfer syntaxes of phantoms (chatxray phantom --help), with commas; none: no phantoms")
	flag.Func("file", "a DICOM file that is sent as well, with other UIDs each time; may be repeated", func(path string) error {
		k, err := copies(path)
		o.kinds = append(o.kinds, k)
		return err
	})
	flag.Parse()
	if *syntaxes != "none" {
		var phantoms []kind
		for s := range strings.SplitSeq(*syntaxes, ",") {
			phantoms = append(phantoms, o.phantoms(s))
		}
		o.kinds = append(phantoms, o.kinds...)
	}
	if err := o.measure(); err != nil {
		fmt.Fprintln(os.Stderr, "overhead:", err)
		os.Exit(1)
	}
}

// phantoms draws objects of a transfer syntax.
func (o *options) phantoms(syntax string) kind {
	return kind{syntax, func(path string, i int) (string, error) {
		bits := "12"
		if syntax == "jpeg" {
			bits = "8" // all that baseline JPEG has
		}
		uid, err := exec.Command(o.bin, "phantom", "--seed", fmt.Sprint(i+1), "--rows", fmt.Sprint(o.rows), "--columns", fmt.Sprint(o.rows*86/105),
			"--bits", bits, "--syntax", syntax, "--print-uid", "--out", path).Output()
		if err != nil {
			return "", fmt.Errorf("phantom of %s: %w", syntax, err)
		}
		return strings.TrimSpace(string(uid)), nil
	}}
}

func (o *options) measure() error {
	if o.n < 1 {
		return errors.New("-n: at least one study")
	}
	dir, err := os.MkdirTemp("", "overhead")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	var services []*service
	for i, bin := range []string{o.bin, o.against} {
		if bin == "" {
			continue
		}
		s, err := start(bin, filepath.Join(dir, fmt.Sprint(i)), o.quiet)
		if err != nil {
			return err
		}
		defer s.stop()
		services = append(services, s)
	}
	var rows []row
	for i := range o.n { // one after another in each round: other work on the machine meets all of them
		for k, kind := range o.kinds {
			path := filepath.Join(dir, "object.dcm")
			uid, err := kind.make(path, i*len(o.kinds)+k)
			if err != nil {
				return err
			}
			for n, s := range services {
				st, err := s.report(path, uid)
				if err != nil {
					return fmt.Errorf("%s: %w", kind.name, err)
				}
				at := k*len(services) + n
				if i == 0 {
					rows = append(rows, row{name: kind.name})
					if n > 0 {
						rows[at].name += ", " + s.bin
					}
				}
				rows[at].studies = append(rows[at].studies, st)
			}
		}
	}
	o.print(rows)
	return nil
}

// row is a row of the table: objects of a kind, read by one of the binaries.
type row struct {
	name    string
	studies []study
}

// print writes a table of medians in ms.
func (o *options) print(rows []row) {
	var steps []string
	for _, r := range rows {
		for _, st := range r.studies {
			for _, name := range st.order {
				if !slices.Contains(steps, name) {
					steps = append(steps, name)
				}
			}
		}
	}
	fmt.Printf("%d studies of each kind, quiet time %v, medians in ms; overhead (complete to SR stored) and model are without ONNX Runtime\n\n", o.n, o.quiet)
	fmt.Printf("| object | overhead | min | max | ONNX Runtime | %s |\n|%s\n", strings.Join(steps, " | "), strings.Repeat("---|", 5+len(steps)))
	for _, r := range rows {
		studies := r.studies
		over := values(studies, func(s study) float64 { return s.total - s.run })
		fmt.Printf("| %s | %.0f | %.0f | %.0f | %.0f |", r.name, middle(over), over[0], over[len(over)-1],
			middle(values(studies, func(s study) float64 { return s.run })))
		for _, name := range steps {
			fmt.Printf(" %.1f |", middle(values(studies, func(s study) float64 { return s.steps[name] })))
		}
		fmt.Println()
	}
}

func values(studies []study, of func(study) float64) []float64 {
	var out []float64
	for _, s := range studies {
		out = append(out, of(s))
	}
	slices.Sort(out)
	return out
}

func middle(sorted []float64) float64 { return sorted[len(sorted)/2] }
