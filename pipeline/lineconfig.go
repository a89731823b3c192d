package pipeline

import (
	"errors"
	"fmt"
	"time"
)

// LineConfig is the section "line" of the configuration file.
type LineConfig struct {
	Quiet    time.Duration `yaml:"quiet"`    // a study is complete when nothing came for this long
	Readers  int           `yaml:"readers"`  // studies read at the same time
	Attempts int           `yaml:"attempts"` // a study that has failed so often is given up, unless for what is away or full
	GiveUp   time.Duration `yaml:"give_up"`  // what still fails after this long for what is away or full is given up as well, a study not before Attempts
	Stop     time.Duration `yaml:"stop"`     // what is being read or delivered may take this long to finish when the service stops; then it is handed back
}

// DefaultLine returns what suits a PACS that forwards study by study.
func DefaultLine() LineConfig {
	return LineConfig{Quiet: 5 * time.Second, Readers: 1, Attempts: 20, GiveUp: 72 * time.Hour, Stop: 10 * time.Second}
}

// Check returns what is wrong with the configuration.
func (c LineConfig) Check() error {
	var errs []error
	if c.Quiet < 0 || c.Quiet > time.Hour {
		errs = append(errs, fmt.Errorf("line.quiet: %v is not between 0s and 1h", c.Quiet))
	}
	if c.Readers < 1 || c.Readers > 64 {
		errs = append(errs, fmt.Errorf("line.readers: %d is not between 1 and 64", c.Readers))
	}
	if c.Attempts < 1 || c.Attempts > 1000 {
		errs = append(errs, fmt.Errorf("line.attempts: %d is not between 1 and 1000", c.Attempts))
	}
	if c.GiveUp < time.Minute {
		errs = append(errs, fmt.Errorf("line.give_up: %v is less than 1m", c.GiveUp))
	}
	if c.Stop < 0 || c.Stop > time.Hour {
		errs = append(errs, fmt.Errorf("line.stop: %v is not between 0s and 1h", c.Stop))
	}
	return errors.Join(errs...)
}
