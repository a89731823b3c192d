// Package chaos kills, stops, starves and lies to the real binaries beside a real Redis and a real Orthanc, by a schedule that a seed makes, and then
// looks whether anything was lost, done twice, or left undone. What it drives is the built program; of the product it imports what makes
// radiographs and nothing else.
package chaos

import (
	"cmp"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"
)

// readers is how many studies a working process reads at the same time.
const readers = 2

// studiesPerFault gives the line something to do at each fault.
const studiesPerFault = 4

var root, _ = filepath.Abs("../..")

// settings are what make chaos gives through the environment.
type settings struct {
	seed     uint64
	faults   int
	topology topology
	binary   string // of chatxray; empty: it is built
	bundle   bool   // the default bundle reads instead of the stub
}

func setting(t *testing.T, name, normal string) int {
	t.Helper()
	v := os.Getenv(name)
	if v == "" {
		v = normal
	}
	n, err := strconv.Atoi(v)
	if err != nil || n < 0 {
		t.Fatalf("%s is not a number: %q", name, v)
	}
	return n
}

// few is how many faults the topologies get where none is chosen: each kind comes in the one that has all of them, and each that there is with SQLite.
var few = map[string]string{"s3": "30", "one": "14"}

// fromEnvironment are the settings of each run that is wanted.
func fromEnvironment(t *testing.T) (all []settings) {
	t.Helper()
	for _, topology := range topologies {
		if name := os.Getenv("CHAOS_TOPOLOGY"); name == topology.Name || name == "" && few[topology.Name] != "" {
			all = append(all, settings{uint64(setting(t, "CHAOS_SEED", "1")), setting(t, "CHAOS_FAULTS", cmp.Or(few[topology.Name], "30")), topology,
				os.Getenv("CHAOS_BINARY"), os.Getenv("CHAOS_READER") == "model"})
		}
	}
	if len(all) == 0 {
		t.Fatalf("CHAOS_TOPOLOGY: %q is none of one, split, s3", os.Getenv("CHAOS_TOPOLOGY"))
	}
	return all
}

// TestChaos runs the schedule of CHAOS_SEED (1) with CHAOS_FAULTS faults (few) in CHAOS_TOPOLOGY (those of few). `make chaos SEED=n FAULTS=n TOPOLOGY=name` is the same with 300 in one.
func TestChaos(t *testing.T) {
	if testing.Short() {
		t.Skip("-short leaves out what runs the whole service")
	}
	all := fromEnvironment(t)
	for _, s := range all {
		if s.binary == "" {
			s.binary = build(t)
		}
		t.Run(s.topology.Name, func(t *testing.T) { chaos(t, s) })
	}
}

func chaos(t *testing.T, s settings) {
	began := time.Now()
	faults, err := plan(s.seed, s.faults, s.topology, os.Getenv("CHAOS_KINDS"))
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("seed %d, topology %s, %d faults: %s", s.seed, s.topology.Name, len(faults), tally(faults))
	for i, f := range faults {
		t.Logf("%3d %v", i+1, f)
	}
	r := start(t, s)
	result := r.run(faults)
	summary := fmt.Sprintf("chaos: %sseed %d, topology %s: %d faults (%d more could not be done), %v, %.0f s", map[bool]string{true: "FAILED: "}[t.Failed()],
		s.seed, s.topology.Name, len(faults)-r.undone, r.undone, result, time.Since(began).Seconds())
	t.Log(summary)
	if file := os.Getenv("CHAOS_SUMMARY"); file != "" { // what go test says of itself comes after the log
		if err := os.WriteFile(file, []byte(summary+"\n"), 0o644); err != nil {
			t.Error(err)
		}
	}
}

// build builds chatxray.
func build(t *testing.T) string {
	t.Helper()
	_ = filepath.WalkDir(root, func(path string, d os.DirEntry, err error) error { // go test else takes a result from its cache though the product has changed
		if err == nil && filepath.Ext(path) == ".go" {
			_, err = os.Stat(path)
		}
		return err
	})
	bin := filepath.Join(t.TempDir(), "chatxray")
	cmd := exec.Command("go", "build", "-o", bin, "./cmd/chatxray")
	cmd.Dir = root
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return bin
}

// run is a service of a topology with what stands around it.
type run struct {
	t        *testing.T
	settings settings
	logs     string
	service  string     // root of its web face
	web      *process   // takes and shows
	workers  []*process // read and deliver; web itself where one process does all
	redis    *process
	port     int       // of Redis
	index    *database // nil where SQLite has it
	pacs     string
	receiver *receiver
	store    *store // nil where files are files
	disk     *disk
	sender   *sender
	studies  []*study

	toll     sync.Mutex
	lost     int       // leases that the faults may have cost
	partings []parting // faults that may have parted workers from what they deliver
	undone   int       // faults that could not be done: nothing was there to be hit, or this machine does not let us
	lifting  sync.WaitGroup
	accounts map[string]*account // by study; made when the run is over
}

// start starts everything and waits until the service is ready.
func start(t *testing.T, s settings) *run {
	t.Helper()
	r := &run{t: t, settings: s, logs: t.TempDir()}
	t.Cleanup(func() {
		if t.Failed() {
			keepLogs(t, r.logs, fmt.Sprintf("seed-%d-%s", s.seed, s.topology.Name))
		}
	})
	r.disk = newDisk(t)
	r.redis, r.port = redis(t, r.logs)
	web := freePort(t)
	r.service = fmt.Sprintf("http://127.0.0.1:%d", web)
	r.pacs = orthanc(t, r.logs, r.service)
	r.receiver = newReceiver(t, r.pacs)
	index, objects := "", `objects: ""`
	if s.topology.S3 {
		r.store = newStore(t, r.logs)
		objects = r.store.yaml()
	}
	if s.topology.SQL {
		r.index = newDatabase(t)
		index = r.index.url
	}
	config := filepath.Join(t.TempDir(), "chatxray.yaml")
	if err := os.WriteFile(config, []byte(fmt.Sprintf(`
dicomweb: {drain: 5s}
archive: {reserve_mb: 8, index: %q, %s}
jobs: {redis: "redis://127.0.0.1:%d/0", lease: %v}
line: {quiet: 500ms, readers: %d}
destinations: [{name: pacs, url: "http://%s/dicom-web", timeout: %v, parallel: %d}]
`, index, objects, r.port, lease, readers, r.receiver.addr, patience, parallel)), 0o644); err != nil {
		t.Fatal(err)
	}
	serve := func(name string, port int, args ...string) *process {
		argv := append([]string{s.binary, "--log-json", "--log-level", "debug", "serve", "--config", config, "--data", r.folder(name), "--listen", fmt.Sprintf("127.0.0.1:%d", port)}, args...)
		if !s.bundle {
			argv = append(argv, "--reader", "stub", "--stub-sleep", "500ms")
		}
		return keep(t, &process{name: name, log: filepath.Join(r.logs, name+".log"), argv: argv, skew: true, env: []string{"CHATXRAY_BUNDLES=" + filepath.Join(root, "bundles")}})
	}
	if s.topology.Workers == 0 {
		r.web = serve("service", web)
		r.workers = []*process{r.web}
	} else {
		r.web = serve("web", web, "--role", "web")
		for i := range s.topology.Workers {
			r.workers = append(r.workers, serve(fmt.Sprintf("worker-%d", i+1), freePort(t), "--role", "worker"))
		}
	}
	eventually(t, 3*time.Minute, "the service to be ready", func() error { return call(impatient, "GET", r.service+"/readyz", nil, nil) })
	r.studies = drawStudies(t, s.seed, max(1, s.faults)*studiesPerFault)
	r.sender = &sender{pacs: r.pacs, service: r.service, read: r.state, slots: make(chan struct{}, 8), giveUp: make(chan struct{})}
	return r
}

// folder is where a process has its data: the same for all, but where files lie in S3.
func (r *run) folder(name string) string {
	if r.settings.topology.S3 {
		return filepath.Join(r.disk.dir, name)
	}
	return filepath.Join(r.disk.dir, "data")
}

// keepLogs copies the logs of a run that failed to dist/chaos.
func keepLogs(t *testing.T, from, name string) {
	to := filepath.Join(root, "dist", "chaos", name)
	_ = os.RemoveAll(to)
	if err := os.CopyFS(to, os.DirFS(from)); err != nil {
		t.Log(err)
		return
	}
	t.Logf("the logs are in %s", to)
}

// run sends the studies while the faults happen, waits until nothing is left to do, and compares.
func (r *run) run(faults []fault) verdict {
	done := make(chan struct{})
	go func() {
		defer close(done)
		pace := length(faults) / time.Duration(len(r.studies))
		var work sync.WaitGroup
		for _, st := range r.studies {
			work.Go(func() { r.sender.send(st) })
			time.Sleep(pace)
		}
		work.Wait()
	}()
	over, watching := make(chan struct{}), sync.WaitGroup{}
	watching.Go(func() { r.watch(over) })
	watching.Go(func() { r.pulse(over) })
	began := time.Now()
	for i, f := range faults {
		time.Sleep(f.After)
		r.tick()
		did := r.strike(f)
		if !did {
			r.undone++
		}
		r.t.Logf("%6.1f s %3d %v%s", time.Since(began).Seconds(), i+1, f, map[bool]string{false: " (could not be done)"}[did])
	}
	r.lifting.Wait()
	time.Sleep(6 * time.Second)
	r.receiver.behave("", 0)
	if r.store != nil {
		r.store.behave("", 0)
	}
	select {
	case <-done:
	case <-time.After(settling):
		r.t.Errorf("the sender still has studies that were not answered 200, %v after the last fault", settling)
		close(r.sender.giveUp)
		<-done
	}
	left := r.settle()
	close(over)
	watching.Wait()
	return r.judge(left)
}

// tick ends what has lasted as long as it should.
func (r *run) tick() {
	r.receiver.tick()
	if r.store != nil {
		r.store.tick()
	}
}

// processes are those of the service, each once.
func (r *run) processes() []*process {
	if r.settings.topology.Workers == 0 {
		return r.workers
	}
	return append([]*process{r.web}, r.workers...)
}

// state is where a study stands, as the service says.
func (r *run) state(uid string) (string, error) {
	var st struct{ State string }
	err := call(impatient, "GET", r.service+"/dicom-web/studies/"+uid+"/reading", nil, &st)
	return st.State, err
}
