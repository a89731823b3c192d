package chaos

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

// watch looks at what waits for another attempt: each has a reason.
func (r *run) watch(over <-chan struct{}) {
	for told := map[string]bool{}; ; {
		_ = r.all(impatient, "jobs", func(p page) { // the service may be away just now
			for _, j := range p.Jobs {
				if what := string(j); waitsMutely(j) && !told[what] {
					told[what] = true
					r.t.Errorf("a job waits for another attempt without a reason: %s", what)
				}
			}
		})
		select {
		case <-over:
			return
		case <-time.After(time.Second):
		}
	}
}

func waitsMutely(job []byte) bool {
	var j struct {
		Next   time.Time
		Reason string
	}
	return json.Unmarshal(job, &j) == nil && !j.Next.IsZero() && j.Reason == ""
}

// compareSteps checks the timeline: every failure, and every beginning after the first, has a reason. The failures of deliveries are no steps: readLogs and watch look at them.
func (r *run) compareSteps(st *study, sets int, v *verdict, fail func(*int, string, ...any)) {
	steps, reported := r.steps(st.uid), 0
	for _, s := range steps {
		if s.State == "reported" {
			reported++
		}
	}
	for _, what := range withoutReason(steps) {
		fail(&v.stuck, "it %s without a reason", what)
	}
	if reported < sets {
		fail(&v.lost, "its timeline has %d reports, want %d", reported, sets)
	}
}

// withoutReason tells what a timeline has no reason for. A beginning says its reason itself, or it is why the study was complete or put into the queue again.
func withoutReason(steps []step) (what []string) {
	began, why := false, ""
	for _, s := range steps {
		switch s.State {
		case "failed":
			if s.Reason == "" {
				what = append(what, "failed")
			}
		case "complete", "queued":
			why += s.Reason
		case "reading":
			if began && why+s.Reason == "" {
				what = append(what, "was begun again")
			}
			began, why = true, ""
		}
	}
	return what
}

type step struct {
	At                    time.Time
	State, Reason, Worker string
}

func (r *run) steps(uid string) []step {
	var t struct{ Steps []step }
	_ = call(patient, "GET", r.service+"/dicom-web/studies/"+uid+"/reading/timeline", nil, &t)
	return t.Steps
}

func (r *run) timeline(uid string) string {
	var b strings.Builder
	for _, s := range r.steps(uid) {
		fmt.Fprintf(&b, "  %s %-9s %s (%s)\n", s.At.Format("15:04:05.000"), s.State, s.Reason, s.Worker)
	}
	return b.String()
}

func TestReasons(t *testing.T) {
	for name, x := range map[string]struct {
		steps []step
		want  []string
	}{
		"read once":                       {[]step{{State: "receiving"}, {State: "complete", Reason: "nothing came"}, {State: "queued"}, {State: "reading"}, {State: "reported"}}, nil},
		"more came":                       {[]step{{State: "reading"}, {State: "reported"}, {State: "receiving"}, {State: "complete", Reason: "nothing came"}, {State: "queued"}, {State: "reading"}}, nil},
		"put down":                        {[]step{{State: "reading"}, {State: "queued", Reason: "put down"}, {State: "reading"}}, nil},
		"put down without a reason":       {[]step{{State: "reading"}, {State: "queued"}, {State: "reading"}}, []string{"was begun again"}},
		"taken over":                      {[]step{{State: "reading"}, {State: "reading", Reason: "taken over"}}, nil},
		"begun again":                     {[]step{{State: "reading"}, {State: "reading"}}, []string{"was begun again"}},
		"read again when it was reported": {[]step{{State: "complete", Reason: "nothing came"}, {State: "reading"}, {State: "reported"}, {State: "reading"}}, []string{"was begun again"}},
		"failed":                          {[]step{{State: "reading"}, {State: "failed", Reason: "disk full"}, {State: "reading", Reason: "attempt 2"}}, nil},
		"failed without a reason":         {[]step{{State: "reading"}, {State: "failed"}, {State: "reading"}}, []string{"failed", "was begun again"}},
	} {
		if got := withoutReason(x.steps); !slices.Equal(got, x.want) {
			t.Errorf("%s: %v, want %v", name, got, x.want)
		}
	}
	for job, want := range map[string]bool{`{"next":"2026-01-01T00:00:00Z","reason":"503"}`: false, `{"next":"2026-01-01T00:00:00Z"}`: true, `{"reason":""}`: false} {
		if got := waitsMutely([]byte(job)); got != want {
			t.Errorf("%s: %v", job, got)
		}
	}
}
