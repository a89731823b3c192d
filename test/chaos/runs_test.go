package chaos

import (
	"bytes"
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// begun is what stands in the log of a process before what it says: the harness writes it at each start.
const begun = "== started"

// account is what the logs of all processes tell of one study.
type account struct {
	runs int // of the model
	// leases are runs of which no reading came to anybody: the process was killed, the lease or the claim ended, another worker had begun.
	leases int
	// forgotten are readings that only the memory of a process had, because the index did not take them, and that ended with it or were made anew by another worker.
	forgotten int
	failed    int // attempts that failed after the model had read; their readings are in the record
	unused    int // the model read again what the memory of the same process had
	unnoted   int // deliveries that were made and could not be noted
	mute      int // failures without a reason
}

func (a *account) add(b account) {
	a.runs += b.runs
	a.leases += b.leases
	a.forgotten += b.forgotten
	a.failed += b.failed
	a.unused += b.unused
	a.unnoted += b.unnoted
	a.mute += b.mute
}

// inHand is what a process has of a study.
type inHand struct {
	reading bool // the model has been run, and what became of that has not been told
	memory  bool // there is a reading that is in no index
}

// accounts reads the log of a process. sets tells how many sets of images a study has: of one set nothing is read twice by a process that remembers it. Lines are
// taken in the order of the file, not by their times: those are of a clock that jumps. With bundle the model's runs are counted at their ends, else, the stub's, at their beginnings.
func accounts(log []byte, bundle bool, sets map[string]int, all map[string]*account) {
	hands := map[string]*inHand{}
	end := func() {
		for study, h := range hands {
			if h.reading {
				all[study].leases++
			}
			if h.memory {
				all[study].forgotten++
			}
		}
		clear(hands)
	}
	for _, line := range bytes.Split(log, []byte("\n")) {
		if string(line) == begun {
			end()
			continue
		}
		var l struct {
			Study, Step, Call, Message, Error string
			Delivered                         bool
		}
		if json.Unmarshal(line, &l) != nil || l.Study == "" {
			continue
		}
		if all[l.Study] == nil {
			all[l.Study] = &account{}
		}
		if hands[l.Study] == nil {
			hands[l.Study] = &inHand{}
		}
		a, h := all[l.Study], hands[l.Study]
		said := func(words string) bool { return strings.HasPrefix(l.Message, words) }
		switch {
		case l.Step == "begin", said("the claim on the study has ended"), said("the study was taken over by another worker"):
			if h.reading { // the attempt has ended, and has told of no reading
				a.leases++
			}
			h.reading = false
		case bundle && l.Step == "model", !bundle && l.Call != "":
			a.runs++
			switch {
			case h.memory && sets[l.Study] > 1: // it may be of other images
				a.forgotten++
			case h.memory:
				a.unused++
			}
			h.reading, h.memory = true, false
		case said("what was read before could not be noted then"):
			h.reading, h.memory = true, false
		case said("what was read could not be noted"):
			h.reading, h.memory = false, true
		case said("a failure could not be noted") && h.reading:
			if h.reading = false; strings.Contains(l.Error, "taken over by another worker") {
				a.leases++
			} else {
				h.memory = true
			}
		case said("the study could not be reported yet"), said("the study is given up"):
			if h.reading {
				a.failed++
			}
			h.reading = false
			if l.Error == "" {
				a.mute++
			}
		case l.Message == "reported":
			h.reading, h.memory = false, false
		case said("what came of a delivery could not be noted") && l.Delivered:
			a.unnoted++
		case said("delivery failed"), said("delivery given up"):
			if l.Error == "" {
				a.mute++
			}
		}
	}
	end()
}

// readLogs makes the accounts of all studies, and looks for programs that have broken down.
func (r *run) readLogs() map[string]*account {
	all, sets := map[string]*account{}, map[string]int{}
	for _, st := range r.studies {
		all[st.uid], sets[st.uid] = &account{}, len(st.waves)
	}
	for _, p := range r.processes() {
		b, err := os.ReadFile(p.log)
		if err != nil {
			r.t.Error(err)
		}
		for _, bad := range [][]byte{[]byte("\npanic: "), []byte("fatal error: "), []byte("DATA RACE"), []byte("SIGSEGV")} {
			if i := bytes.Index(b, bad); i >= 0 {
				r.t.Errorf("%s: %.2000s", p.name, b[i:])
			}
		}
		accounts(b, r.settings.bundle, sets, all)
	}
	return all
}

// most is how often the model may have been run for a study that has so many sets of results: once for each, and once more for each reading that was lost. A failure
// after the model costs nothing, since what was read is kept, unless images came before the next attempt: then the reading of the earlier ones is never reported.
func (a account) most(st *study, sets int) (runs, superseded int) {
	if _, most := st.sets(); st.rush {
		superseded = min(most-sets, a.failed)
	}
	return sets + a.leases + a.forgotten + superseded, superseded
}

// compareRuns looks at how often the model was run for a study, and whether its failures were told.
func (r *run) compareRuns(st *study, sets int, v *verdict, fail func(*int, string, ...any)) {
	a := r.accounts[st.uid]
	most, superseded := a.most(st, sets)
	v.account.add(*a)
	v.superseded += superseded
	beginnings := 0
	for _, s := range r.steps(st.uid) {
		if s.State == "reading" {
			beginnings++
		}
	}
	switch {
	case a.runs > most:
		fail(&v.duplicate, "the model ran %d times, for %d sets of results; by the logs %d runs ended without a reading, %d readings were in memory only and are gone, %d were superseded",
			a.runs, sets, a.leases, a.forgotten, superseded)
	case a.runs > beginnings:
		fail(&v.duplicate, "the model ran %d times, and the timeline has %d beginnings", a.runs, beginnings)
	case a.unused > 0:
		fail(&v.duplicate, "the model read again what the process remembered")
	}
	if a.mute > 0 {
		fail(&v.stuck, "the logs tell %d failures without a reason", a.mute)
	}
}

// The account of a log, line by line: what costs a run of the model, and what does not.
func TestAccounts(t *testing.T) {
	const (
		begin    = `{"study":"1","step":"begin"}`
		call     = `{"study":"1","call":"A","message":"STUB READER: no model looked at this image"}`
		reported = `{"study":"1","message":"reported"}`
		failed   = `{"study":"1","error":"disk full","message":"the study could not be reported yet"}`
		mute     = `{"study":"1","message":"the study could not be reported yet"}`
		unnoted  = `{"study":"1","error":"disk full","message":"a failure could not be noted"}`
		taken    = `{"study":"1","error":"the work was taken over by another worker","message":"a failure could not be noted"}`
		kept     = `{"study":"1","message":"what was read could not be noted: this process remembers it, another one would read the study again"}`
		used     = `{"study":"1","message":"what was read before could not be noted then; the study is not read again"}`
		claim    = `{"study":"1","message":"the claim on the study has ended: it is taken up again"}`
		others   = `{"study":"1","message":"the study was taken over by another worker; nothing of this reading is kept"}`
	)
	for name, x := range map[string]struct {
		log  []string
		sets int
		want account
	}{
		"read once":                        {[]string{begin, call, reported}, 1, account{runs: 1}},
		"failed before the model":          {[]string{begin, failed, begin, failed, begin, call, reported}, 1, account{runs: 1}},
		"failed after the model":           {[]string{begin, call, failed, begin, reported}, 1, account{runs: 1, failed: 1}},
		"read again after a failure":       {[]string{begin, call, failed, begin, call, reported}, 1, account{runs: 2, failed: 1}},
		"read twice at once":               {[]string{begin, call, call, reported}, 1, account{runs: 2}},
		"killed":                           {[]string{begin, call, begun, begin, call, reported}, 1, account{runs: 2, leases: 1}},
		"killed before the model":          {[]string{begin, begun, begin, call, reported}, 1, account{runs: 1}},
		"put down":                         {[]string{begin, call, begin, call, reported}, 1, account{runs: 2, leases: 1}},
		"put down, then failed":            {[]string{begin, call, begin, failed, begin, call, reported}, 1, account{runs: 2, leases: 1}},
		"put down for good":                {[]string{begin, call}, 1, account{runs: 1, leases: 1}},
		"the claim ended":                  {[]string{begin, call, claim, begin, call, reported}, 1, account{runs: 2, leases: 1}},
		"taken over":                       {[]string{begin, call, others}, 1, account{runs: 1, leases: 1}},
		"taken over, and failed":           {[]string{begin, call, taken, failed}, 1, account{runs: 1, leases: 1}},
		"remembered":                       {[]string{begin, call, unnoted, failed, begin, used, reported}, 1, account{runs: 1}},
		"remembered, and failed again":     {[]string{begin, call, unnoted, failed, begin, used, unnoted, failed, begin, used, reported}, 1, account{runs: 1}},
		"remembered, claim ended":          {[]string{begin, call, kept, claim, begin, used, reported}, 1, account{runs: 1}},
		"remembered, and killed":           {[]string{begin, call, unnoted, failed, begun, begin, call, reported}, 1, account{runs: 2, forgotten: 1}},
		"remembered, read by another":      {[]string{begin, call, unnoted, failed}, 1, account{runs: 1, forgotten: 1}},
		"remembered, and read again":       {[]string{begin, call, unnoted, failed, begin, call, reported}, 1, account{runs: 2, unused: 1}},
		"remembered, and other images":     {[]string{begin, call, unnoted, failed, begin, call, reported}, 2, account{runs: 2, forgotten: 1}},
		"nothing read, failure not noted":  {[]string{begin, unnoted, failed, begin, call, reported}, 1, account{runs: 1}},
		"a failure without a reason":       {[]string{begin, mute}, 1, account{mute: 1}},
		"a delivery failed":                {[]string{`{"study":"1","error":"503","message":"delivery failed"}`}, 1, account{}},
		"a delivery failed, no reason":     {[]string{`{"study":"1","message":"delivery failed"}`}, 1, account{mute: 1}},
		"a delivery could not be noted":    {[]string{`{"study":"1","delivered":true,"message":"what came of a delivery could not be noted"}`}, 1, account{unnoted: 1}},
		"none was made, and was not noted": {[]string{`{"study":"1","delivered":false,"message":"what came of a delivery could not be noted"}`}, 1, account{}},
	} {
		all := map[string]*account{}
		accounts([]byte(strings.Join(x.log, "\n")), false, map[string]int{"1": x.sets}, all)
		if len(all) != 1 || *all["1"] != x.want {
			t.Errorf("%s: %+v, want %+v", name, *all["1"], x.want)
		}
	}
	all := map[string]*account{}
	accounts([]byte(`{"study":"1","step":"model"}`), true, nil, all)
	if got := maps.Collect(maps.All(all)); *got["1"] != (account{runs: 1, leases: 1}) {
		t.Errorf("a run of a bundle: %+v", *got["1"])
	}
}

// A study's bound: nothing is allowed for a failed attempt, unless other images came.
func TestMostRuns(t *testing.T) {
	one, rush := &study{waves: make([][]*instance, 1)}, &study{waves: make([][]*instance, 2), rush: true}
	for _, x := range []struct {
		st         *study
		a          account
		sets, want int
	}{
		{one, account{}, 1, 1}, {one, account{failed: 5}, 1, 1}, {one, account{leases: 1}, 1, 2}, {one, account{forgotten: 2}, 1, 3}, {&study{refused: true}, account{failed: 1}, 0, 0},
		{rush, account{}, 1, 1}, {rush, account{failed: 1}, 1, 2}, {rush, account{failed: 3}, 1, 2}, {rush, account{failed: 1}, 2, 2},
	} {
		if got, _ := x.a.most(x.st, x.sets); got != x.want {
			t.Errorf("%+v with %d sets: at most %d runs, want %d", x.a, x.sets, got, x.want)
		}
	}
}

// The words that the accounts look for are those of the product.
func TestWordsOfTheLog(t *testing.T) {
	files, _ := filepath.Glob(filepath.Join(root, "pipeline", "*.go"))
	var source []byte
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		source = append(source, b...)
	}
	for _, words := range []string{`took("begin")`, `took("model")`, `Msg("the claim on the study has ended`, `Msg("the study was taken over by another worker`, `Msg("what was read before could not be noted then`,
		`Msg("what was read could not be noted`, `Msg("a failure could not be noted`, `the work was taken over by another worker"`, `Msg("the study could not be reported yet`, `Msg("the study is given up`, `Msg("reported")`,
		`Bool("delivered", err == nil).Msg("what came of a delivery could not be noted`, `Msg("delivery failed`, `Msg("delivery given up`} {
		if !bytes.Contains(source, []byte(words)) {
			t.Errorf("no line of pipeline has %s", words)
		}
	}
}
