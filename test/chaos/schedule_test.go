package chaos

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"
)

// topology is which processes make up the service, and what they keep their data in.
type topology struct {
	Name    string
	Workers int  // processes of the role worker beside one of the role web; 0: one process that is both
	SQL     bool // PostgreSQL holds the index; else SQLite
	S3      bool // an S3 server holds the instances; else files
}

var topologies = []topology{
	{Name: "one"},
	{Name: "split", Workers: 2, SQL: true},
	{Name: "s3", Workers: 2, SQL: true, S3: true},
}

// fault is one entry of the schedule.
type fault struct {
	After time.Duration // since the fault before it
	Kind  string
	On    int           // which process, of those that the kind may hit
	For   time.Duration // how long it lasts; of a jump of the clock: by how much
}

func (f fault) String() string {
	return fmt.Sprintf("+%-6v %s on=%d for=%v", f.After, f.Kind, f.On, f.For)
}

// kind is one thing that can go wrong. The chance of each is its weight.
type kind struct {
	name        string
	weight      int
	least, most time.Duration // how long it lasts
	in          func(topology) bool
}

// lease is that of the configuration: what a dead process was doing waits so long.
const lease = 2 * time.Second

var (
	everywhere = func(topology) bool { return true }
	inS3       = func(t topology) bool { return t.S3 }
)

var kinds = []kind{
	{"kill service", 6, 0, time.Second, everywhere}, // SIGKILL; down for so long
	{"stop service", 3, lease + lease/2, 2*lease + time.Second, everywhere},
	{"end service", 2, 0, 500 * time.Millisecond, everywhere}, // SIGTERM, as in a rolling update
	{"kill redis", 3, 0, 2 * lease, everywhere},
	{"stop redis", 2, time.Second, 2 * lease, everywhere}, // takes connections, answers nothing
	{"flush redis", 4, 0, 0, everywhere},
	{"receiver refuses", 2, time.Second, 4 * time.Second, everywhere}, // no connection
	{"receiver hangs", 2, time.Second, 5 * time.Second, everywhere},   // takes the request, answers nothing
	{"receiver 503", 2, time.Second, 4 * time.Second, everywhere},
	{"receiver 202", 2, time.Second, 4 * time.Second, everywhere},         // stores, and says Accepted
	{"receiver 202 refused", 2, time.Second, 4 * time.Second, everywhere}, // stores nothing: Accepted, every instance out of resources
	{"receiver breaks off", 2, time.Second, 4 * time.Second, everywhere},  // stores, and closes the connection without an answer
	{"disk full", 2, time.Second, 4 * time.Second, everywhere},
	{"clock", 3, 0, 0, everywhere},
	{"restart postgres", 3, 0, time.Second, func(t topology) bool { return t.SQL }},
	{"s3 503", 4, time.Second, 4 * time.Second, inS3},
	{"kill s3", 4, 0, 2 * time.Second, inS3},
	{"s3 refuses", 2, time.Second, 4 * time.Second, inS3},
	{"s3 hangs", 2, time.Second, 4 * time.Second, inS3},
	{"s3 breaks off", 3, time.Second, 4 * time.Second, inS3}, // does what it is told to, and closes the connection without an answer
}

var jumps = []time.Duration{-6 * time.Hour, -10 * time.Minute, -5 * time.Second, 5 * time.Second, 10 * time.Minute, 6 * time.Hour}

// plan draws a schedule of n faults: the same for the same seed, topology and kinds. Each kind that can happen comes once before any is drawn by weight.
// only names kinds with commas between them; empty: all.
func plan(seed uint64, n int, t topology, only string) ([]fault, error) {
	r := rand.New(rand.NewPCG(seed, 6))
	var bag []kind
	var all []kind
	var known, wanted []string
	if only != "" {
		wanted = strings.Split(only, ",")
	}
	for _, k := range kinds {
		if !k.in(t) {
			continue
		}
		known = append(known, k.name)
		if only == "" || slices.Contains(wanted, k.name) {
			all = append(all, k)
			for range k.weight {
				bag = append(bag, k)
			}
		}
	}
	for _, w := range wanted {
		if !slices.Contains(known, w) {
			return nil, fmt.Errorf("no fault of topology %s is called %q; there are, with commas between them: %s", t.Name, w, strings.Join(known, ","))
		}
	}
	r.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	var out []fault
	for i := range n {
		k := bag[r.IntN(len(bag))]
		if i < len(all) {
			k = all[i]
		}
		f := fault{After: 600*time.Millisecond + time.Duration(r.IntN(1800))*time.Millisecond, Kind: k.name, On: r.IntN(cmp.Or(t.Workers, 0) + 1)}
		f.For = k.least + time.Duration(r.Int64N(int64(k.most-k.least)+1)).Truncate(time.Millisecond)
		if k.name == "clock" {
			f.For = jumps[r.IntN(len(jumps))]
		}
		out = append(out, f)
	}
	return out, nil
}

// length is how long a schedule takes.
func length(all []fault) (d time.Duration) {
	for _, f := range all {
		d += f.After
	}
	return d
}

// tally names how often each kind comes.
func tally(all []fault) (s string) {
	n := map[string]int{}
	for _, f := range all {
		n[f.Kind]++
	}
	for _, k := range kinds {
		if n[k.name] > 0 {
			s += fmt.Sprintf("%s %d, ", k.name, n[k.name])
		}
	}
	return s[:max(0, len(s)-2)]
}

// chosen is the topology of a name.
func chosen(name string) (topology, bool) {
	i := slices.IndexFunc(topologies, func(t topology) bool { return t.Name == name })
	if i < 0 {
		return topology{}, false
	}
	return topologies[i], true
}

func TestKindsByName(t *testing.T) {
	one, _ := chosen("one")
	for _, only := range []string{"stop servcie", "kill service,", "s3 503"} {
		if _, err := plan(1, 5, one, only); err == nil || !strings.Contains(err.Error(), "stop service") {
			t.Errorf("%q: %v", only, err)
		}
	}
	some, err := plan(1, 20, one, "stop service,flush redis")
	if err != nil || len(some) != 20 {
		t.Error(some, err)
	}
	for _, f := range some {
		if f.Kind != "stop service" && f.Kind != "flush redis" {
			t.Error(f)
		}
	}
}
