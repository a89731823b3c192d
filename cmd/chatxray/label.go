package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"

	"chatxray/pipeline"
	"chatxray/pipeline/label"
)

type labelCmd struct{}

// Help is shown by chatxray label --help.
func (labelCmd) Help() string {
	return `Reads reports from standard input, one a line (English), and prints for each a JSON object from label to "present", "absent",
"undetermined" or "not said". The same rules turn a model's sentences into coded findings.`
}

// sentenceEnd is where one sentence ends and the next begins; a full stop inside a number is none.
var sentenceEnd = regexp.MustCompile(`[.!?;]\s+`)

// Run labels standard input.
func (labelCmd) Run(s streams) error {
	in := bufio.NewScanner(s.in)
	in.Buffer(nil, 1<<20)
	out := bufio.NewWriter(s.out)
	defer out.Flush()
	enc := json.NewEncoder(out)
	for in.Scan() {
		found := map[string]pipeline.Presence{}
		for _, f := range label.Report(sentenceEnd.Split(in.Text(), -1)) {
			found[f.Label] = f.Presence
		}
		if err := enc.Encode(found); err != nil {
			return err
		}
	}
	if errors.Is(in.Err(), bufio.ErrTooLong) {
		return fmt.Errorf("a line of standard input is longer than 1 MiB: %w", pipeline.ErrInvalid)
	}
	return in.Err()
}
