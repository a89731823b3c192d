package jobs

import (
	"fmt"
	"time"

	"chatxray/pipeline"
)

// parseHours reads "20:00-06:00", hours of the day in local time, the end not included; they may go over midnight. Empty is the whole day.
func parseHours(s string) (from, to time.Duration, err error) {
	if s == "" {
		return 0, 0, nil
	}
	var h1, m1, h2, m2 int
	if n, serr := fmt.Sscanf(s, "%2d:%2d-%2d:%2d", &h1, &m1, &h2, &m2); serr != nil || n != 4 || s != fmt.Sprintf("%02d:%02d-%02d:%02d", h1, m1, h2, m2) ||
		max(h1, h2) > 23 || max(m1, m2) > 59 || min(h1, m1, h2, m2) < 0 || h1 == h2 && m1 == m2 {
		return 0, 0, fmt.Errorf("%w: %q are no hours such as 20:00-06:00", pipeline.ErrInvalid, s)
	}
	minutes := func(h, m int) time.Duration { return time.Duration(h)*time.Hour + time.Duration(m)*time.Minute }
	return minutes(h1, m1), minutes(h2, m2), nil
}

// OffPeakOpen tells whether the lane off-peak is open.
func (c Config) OffPeakOpen(now time.Time) bool {
	from, to, err := parseHours(c.OffPeak)
	if err != nil || from == to {
		return true
	}
	at := time.Duration(now.Hour())*time.Hour + time.Duration(now.Minute())*time.Minute
	if from < to {
		return from <= at && at < to
	}
	return at >= from || at < to
}
