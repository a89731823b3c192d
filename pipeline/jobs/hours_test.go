package jobs

import (
	"testing"
	"time"
)

func TestOffPeakHours(t *testing.T) {
	at := func(h, m int) time.Time { return time.Date(2026, 3, 1, h, m, 0, 0, time.UTC) }
	for _, c := range []struct {
		hours string
		at    time.Time
		open  bool
	}{
		{"", at(12, 0), true},
		{"20:00-06:00", at(20, 0), true}, {"20:00-06:00", at(19, 59), false}, {"20:00-06:00", at(0, 0), true}, {"20:00-06:00", at(5, 59), true}, {"20:00-06:00", at(6, 0), false},
		{"12:30-13:00", at(12, 30), true}, {"12:30-13:00", at(12, 29), false}, {"12:30-13:00", at(13, 0), false},
	} {
		cfg := Default()
		cfg.OffPeak = c.hours
		if err := cfg.Check(); err != nil {
			t.Error(err)
		}
		if got := cfg.OffPeakOpen(c.at); got != c.open {
			t.Errorf("%q at %s: %v", c.hours, c.at.Format("15:04"), got)
		}
	}
	for _, wrong := range []string{"night", "20:00", "20:00-24:00", "20:60-06:00", "8:00-9:00", "20:00-20:00", "20:00-06:00 ", "-1:00-06:00", "20:00 - 06:00"} {
		cfg := Default()
		cfg.OffPeak = wrong
		if cfg.Check() == nil {
			t.Errorf("%q is taken", wrong)
		}
	}
}
