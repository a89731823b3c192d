// Command testlog makes the output of the tests readable and shows what was skipped.
//
//	go test -json ./... | testlog go FILE    print as `go test` does, failures with their output; keep the JSON in FILE
//	testlog skips [-strict] FILE...          list the skipped tests of such files and of pytest's JUnit XML, with reasons
//
// With -strict a skip is an error, unless its reason is an absent ../shared or an absent GPU.
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"regexp"
	"strings"
)

// excused are the reasons for which a test may be skipped where everything is installed.
var excused = regexp.MustCompile(`\.\./shared absent|\bGPU\b`)

func main() {
	ok, err := run(os.Args[1:], os.Stdin, os.Stdout)
	if err != nil {
		fmt.Fprintln(os.Stderr, "testlog:", err)
		os.Exit(2)
	}
	if !ok {
		os.Exit(1)
	}
}

func run(args []string, in io.Reader, out io.Writer) (ok bool, err error) {
	if len(args) == 2 && args[0] == "go" {
		f, err := os.Create(args[1])
		if err != nil {
			return false, err
		}
		ok, err := follow(in, f, out)
		return ok, errors.Join(err, f.Close())
	}
	if len(args) > 1 && args[0] == "skips" {
		flags := flag.NewFlagSet("skips", flag.ContinueOnError)
		strict := flags.Bool("strict", false, "a skip for another reason than ../shared or a GPU is an error")
		if err := flags.Parse(args[1:]); err != nil {
			return false, err
		}
		return listSkips(flags.Args(), *strict, out)
	}
	return false, errors.New("usage: testlog go FILE | testlog skips [-strict] FILE...")
}

// skip is one skipped test.
type skip struct {
	test   string // package or module, then the test
	reason string
}

func listSkips(files []string, strict bool, out io.Writer) (ok bool, err error) {
	var skips []skip
	for _, name := range files {
		read := goSkips
		if strings.HasSuffix(name, ".xml") {
			read = pytestSkips
		}
		f, err := os.Open(name)
		if err != nil {
			return false, err
		}
		found, err := read(f)
		f.Close()
		if err != nil {
			return false, fmt.Errorf("%s: %w", name, err)
		}
		skips = append(skips, found...)
	}
	ok = true
	fmt.Fprintf(out, "%d skipped tests\n", len(skips))
	for _, s := range skips {
		mark := "SKIP"
		if !excused.MatchString(s.reason) {
			mark, ok = "SKIP!", false
		}
		fmt.Fprintf(out, "%-5s %s: %s\n", mark, s.test, s.reason)
	}
	if !ok && strict {
		fmt.Fprintln(out, "SKIP! marks a skip whose reason is neither an absent ../shared nor an absent GPU: install what it needs, or mend the test")
	}
	return ok || !strict, nil
}
