package pipeline

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"
)

// memory is an archive in memory. failAt is how the names of the steps begin that fail, as at a crash or on a full disk.
type memory struct {
	mu        sync.Mutex
	studies   map[string]*Study
	received  map[string]time.Time
	records   map[string][]Record
	lives     map[string]*Life
	changes   map[string][]Change
	open      map[string]bool // something is to be done
	documents map[string]Document
	failAt    string
	foreign   bool     // what is in documents came from outside
	puts      []string // order of what was made durable
}

func newMemory() *memory {
	return &memory{studies: map[string]*Study{}, received: map[string]time.Time{}, records: map[string][]Record{}, documents: map[string]Document{},
		lives: map[string]*Life{}, changes: map[string][]Change{}, open: map[string]bool{}}
}

var errCrash = errors.New("the disk is gone")

func (m *memory) step(name string) error {
	if m.failAt != "" && strings.HasPrefix(name, m.failAt) {
		return errCrash
	}
	m.puts = append(m.puts, name)
	return nil
}

func (m *memory) store(study, instance string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	st := m.studies[study]
	if st == nil {
		st = &Study{StudyInstanceUID: study}
	}
	in := &Instance{StudyInstanceUID: study, SeriesInstanceUID: study + ".1", SOPInstanceUID: instance, SOPClassUID: "1.2.840.10008.5.1.4.1.1.1.1"}
	copy(in.Digest[:], instance)
	m.studies[study] = &Study{StudyInstanceUID: study, Instances: append(slices.Clone(st.Instances), in)}
	m.received[study] = time.Now()
	m.arrive(study)
}

func (m *memory) Study(_ context.Context, uid string) (*Study, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if st := m.studies[uid]; st != nil {
		return st, nil
	}
	return nil, ErrNotFound
}

func (m *memory) Records(_ context.Context, uid string) ([]Record, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var out []Record
	for _, r := range m.records[uid] {
		out = append(out, fromDisk(r))
	}
	return out, nil
}

// fromDisk is a record as a file gives it: it shares nothing.
func fromDisk(r Record) (out Record) {
	b, err := json.Marshal(r)
	if err == nil {
		err = json.Unmarshal(b, &out)
	}
	if err != nil {
		panic(err)
	}
	return out
}

func (m *memory) Document(_ context.Context, _ string, ref DocumentRef) (Document, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	d, ok := m.documents[ref.SOPInstanceUID]
	if !ok {
		return d, ErrNotFound
	}
	return d, nil
}

func (m *memory) PutPreview(context.Context, string, string, []byte) error { return nil }

// oneClaim is a Claims of a single process.
type oneClaim struct {
	mu   sync.Mutex
	held map[string]bool
}

func (c *oneClaim) Claim(ctx context.Context, key string) (context.Context, func(), bool, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.held[key] {
		return nil, nil, false, nil
	}
	c.held[key] = true
	return ctx, func() { c.mu.Lock(); delete(c.held, key); c.mu.Unlock() }, true, nil
}

// counting is a model that counts how often it reads.
type counting struct {
	mu      sync.Mutex
	reads   int
	version string
	block   chan struct{} // when set, Read waits for it
	held    string        // of its readings
}

func (c *counting) Ref() ModelRef {
	return ModelRef{Name: "counting", Version: "1" + c.version, Digest: Digest([]byte(strings.Repeat("v", 31) + "1" + c.version)[len(c.version):])}
}

func (c *counting) Read(ctx context.Context, m *Image) (*Reading, error) {
	c.mu.Lock()
	c.reads++
	c.mu.Unlock()
	if c.block != nil {
		select {
		case <-c.block:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	if m.ViewUnknown && strings.Contains(m.Instance.SOPInstanceUID, "sideways") {
		return nil, fmt.Errorf("reading: %w", Refusal{SOPInstanceUID: m.Instance.SOPInstanceUID, Reason: NotFrontal, Detail: "not frontal"})
	}
	return &Reading{Held: c.held, Model: c.Ref(), Language: "en", Sentences: []Sentence{{Text: "The lungs are clear.", Section: SectionFindings}}}, nil
}

func (c *counting) Preview(*Image) ([]byte, error) { return []byte("png"), nil }

func (c *counting) count() int { c.mu.Lock(); defer c.mu.Unlock(); return c.reads }

type bench struct {
	*Line
	archive *memory
	model   *counting
	sent    chan []Document
}

func newLine(t *testing.T, archive *memory) *bench {
	t.Helper()
	model := &counting{}
	b := &bench{archive: archive, model: model, sent: make(chan []Document, 64)}
	b.Line = &Line{
		Config: LineConfig{Quiet: 30 * time.Millisecond, Readers: 2, Attempts: 10, GiveUp: time.Hour},
		Steps: Steps{
			Select: func(st *Study) (chosen []Chosen, refused []Refusal) {
				for _, in := range st.Instances {
					if strings.HasPrefix(in.SOPInstanceUID, "lateral") {
						refused = append(refused, Refusal{SOPInstanceUID: in.SOPInstanceUID, Reason: "lateral", Detail: "a lateral view"})
						continue
					}
					chosen = append(chosen, Chosen{Instance: in, ViewUnknown: strings.HasPrefix(in.SOPInstanceUID, "unknown")})
				}
				return
			},
			Decode: func(_ context.Context, c Chosen) (*Image, error) {
				if strings.HasPrefix(c.Instance.SOPInstanceUID, "broken") {
					return nil, fmt.Errorf("no pixels: %w", ErrInvalid)
				}
				return &Image{Instance: c.Instance}, nil
			},
			Model: model,
			Write: func(_ *Study, r *Reading, earlier []Record) ([]Document, error) {
				var out []Document
				for _, k := range []DocumentKind{FindingsSR, NarrativeSR} {
					out = append(out, Document{Kind: k, StudyInstanceUID: r.StudyInstanceUID, SOPInstanceUID: fmt.Sprintf("%s.%s.%d.%d", r.StudyInstanceUID, k, r.Revision, len(earlier))})
				}
				return out, nil
			},
		},
		Archive: archive, Claims: &oneClaim{held: map[string]bool{}}, Studies: newMemoryQueue(), Worker: "here", Log: zerolog.Nop(), Now: time.Now,
		Destinations: []Destination{{Name: "pacs", Queue: newMemoryQueue(), Wanted: func(d []Document) []Document { return d }, Permanent: func(error) bool { return false },
			Deliver: func(_ context.Context, _ Record, d []Document) error { b.sent <- d; return nil }}},
	}
	return b
}

// start runs the line until the test ends or stop is called.
func (b *bench) start(t *testing.T) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	for i := range b.Destinations {
		if b.Destinations[i].Queue == nil {
			b.Destinations[i].Queue = newMemoryQueue()
		}
	}
	done := make(chan error, 1)
	go func() { done <- b.Run(ctx, ctx) }()
	var once sync.Once
	stop = func() { once.Do(func() { cancel(); <-done }) }
	t.Cleanup(stop)
	return stop
}

// failed waits until a failure of the study is on disk.
func (b *bench) failed(t *testing.T, study string) Status {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(2 * time.Millisecond) {
		s, err := b.Status(t.Context(), study)
		if err == nil && s.Record != nil && s.Record.State == StateFailed && s.State != StateReading {
			return s
		}
		if time.Now().After(end) {
			t.Fatalf("study %s is %q (%v), and no record says that it failed", study, s.State, err)
		}
	}
}

func (b *bench) until(t *testing.T, study string, want State) Status {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(2 * time.Millisecond) {
		s, err := b.Status(t.Context(), study)
		if err == nil && (s.State == want || want == StateReported && s.State == StateDelivered) {
			return s
		}
		if time.Now().After(end) {
			t.Fatalf("study %s is %q (%v), not %q", study, s.State, err, want)
		}
	}
}

// What a clock has dated that was ahead, before it was set back or at another process, waits no longer for that when the queue was lost.
func TestLineWhoseClockWasSetBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newLine(t, newMemory())
		ahead := time.Now().Add(6 * time.Hour)
		b.archive.store("1.2", "frontal")
		b.archive.lives["1.2"].Received = ahead
		b.archive.store("1.3", "frontal")
		b.archive.note(b.archive.lives["1.3"], Change{At: ahead, State: StateFailed, Reason: "the disk is full", Next: ahead.Add(time.Second)})
		b.start(t)
		b.until(t, "1.2", StateReported)
		b.until(t, "1.3", StateReported)
	})
}

func TestLineReadsAStudyOnceItIsComplete(t *testing.T) { synctest.Test(t, readsOnceComplete) }

func readsOnceComplete(t *testing.T) {
	b := newLine(t, newMemory())
	b.start(t)
	for i := range 4 { // the quiet time begins anew with each instance
		b.archive.store("1.2", fmt.Sprintf("frontal%d", i))
		b.Stored("1.2")
		time.Sleep(10 * time.Millisecond)
	}
	s := b.until(t, "1.2", StateReported)
	if n := b.model.count(); n != 1 {
		t.Errorf("the model read %d times, want once", n)
	}
	if len(s.Record.Documents) != 2 || s.Record.Reading.Revision != 1 || len(s.Record.Reading.Inputs) != 1 {
		t.Errorf("record %+v", s.Record)
	}
	if got := len(s.Record.Reading.Refused); got != 3 {
		t.Errorf("%d images told as not read, want 3", got)
	}
	if docs := <-b.sent; len(docs) != 2 {
		t.Errorf("%d documents delivered, want 2", len(docs))
	}
	want := []string{"document findings", "document narrative", "record reported"}
	b.archive.mu.Lock()
	got := slices.Clone(b.archive.puts[:3])
	b.archive.mu.Unlock()
	if !slices.Equal(got, want) {
		t.Errorf("made durable in the order %q, want %q", got, want)
	}
}

func TestLineReadsAgainWhenTheSetOfImagesChanges(t *testing.T) {
	b := newLine(t, newMemory())
	b.start(t)
	b.archive.store("1.2", "frontal")
	b.Stored("1.2")
	b.until(t, "1.2", StateReported)
	<-b.sent

	b.archive.store("1.2", "lateral") // not read, so the set of images read is the same
	b.Stored("1.2")
	time.Sleep(100 * time.Millisecond)
	b.until(t, "1.2", StateReported)
	if n := b.model.count(); n != 1 {
		t.Errorf("a lateral view made the model read again (%d times)", n)
	}
	b.archive.store("1.2", "frontal2")
	b.Stored("1.2")
	docs := <-b.sent
	if s := b.until(t, "1.2", StateReported); s.Record.Reading.Revision != 2 {
		t.Errorf("revision %d, want 2", s.Record.Reading.Revision)
	}
	if !strings.HasSuffix(docs[0].SOPInstanceUID, ".2.1") {
		t.Errorf("the second revision does not know its predecessor: %s", docs[0].SOPInstanceUID)
	}
}

func TestLineRefusals(t *testing.T) {
	b := newLine(t, newMemory())
	b.start(t)
	b.archive.store("1.2", "lateral")
	b.archive.store("1.2", "broken")
	b.Stored("1.2")
	s := b.until(t, "1.2", StateRefused)
	reasons := map[string]string{}
	for _, r := range s.Record.Refused {
		reasons[r.SOPInstanceUID] = r.Reason
	}
	if reasons["lateral"] != "lateral" || reasons["broken"] != "invalid" {
		t.Errorf("refused %v", reasons)
	}
	b.archive.store("1.2", "frontal") // what comes later is read all the same
	b.Stored("1.2")
	b.until(t, "1.2", StateReported)
}

// An image whose view the header does not tell is the model's to refuse; then the next one is read, and the record says who told.
func TestLineAsksTheModelForTheView(t *testing.T) {
	b := newLine(t, newMemory())
	b.archive.store("1.2", "unknown, sideways")
	b.start(t)
	s := b.until(t, "1.2", StateRefused)
	if r := s.Record.Refused; len(r) != 1 || r[0].Reason != NotFrontal {
		t.Errorf("refused %v", r)
	}
	b.archive.store("1.2", "unknown")
	b.Stored("1.2")
	r := b.until(t, "1.2", StateReported).Record.Reading
	if len(r.Refused) != 1 || r.Refused[0].Reason != NotFrontal || r.Inputs[0].SOPInstanceUID != "unknown" || !r.Inputs[0].ViewByModel {
		t.Errorf("refused %v, read %+v", r.Refused, r.Inputs)
	}
}

// What was read is kept where its documents cannot be: it is not read again.
func TestLineGoesOnWhereItWas(t *testing.T) {
	for _, step := range []string{"document findings", "document narrative", "record reported"} {
		t.Run(step, func(t *testing.T) {
			archive := newMemory()
			archive.store("1.2", "frontal")
			archive.failAt = step
			first := newLine(t, archive)
			stop := first.start(t)
			first.failed(t, "1.2")
			stop()
			archive.mu.Lock()
			archive.failAt = ""
			archive.mu.Unlock()
			second := newLine(t, archive)
			second.start(t)
			s := second.until(t, "1.2", StateReported)
			if n := first.model.count() + second.model.count(); n != 1 {
				t.Errorf("read %d times", n)
			}
			if len(archive.documents) != 2 || s.Record.Error != "" {
				t.Errorf("%d documents, error %q", len(archive.documents), s.Record.Error)
			}
			if docs := <-second.sent; len(docs) != 2 {
				t.Errorf("%d documents delivered", len(docs))
			}
		})
	}
}

// A start leaves alone what is settled, whatever the model is now, and goes on delivering what is on its way.
func TestLineStartsWithUnfinishedWorkOnly(t *testing.T) {
	archive := newMemory()
	first := newLine(t, archive)
	first.Destinations[0].Deliver = func(context.Context, Record, []Document) error { return errors.New("not now") }
	stop := first.start(t)
	archive.store("1.2", "frontal")
	first.Stored("1.2")
	first.until(t, "1.2", StateReported)
	stop()
	second := newLine(t, archive)
	second.model.version = "2"
	late := second.Destinations[0]
	late.Name, late.Queue = "configured later", nil
	late.Deliver = func(context.Context, Record, []Document) error {
		t.Error("history went to a new destination")
		return nil
	}
	second.Destinations = append(second.Destinations, late)
	stop = second.start(t)
	if docs := <-second.sent; len(docs) != 2 {
		t.Errorf("%d documents delivered", len(docs))
	}
	time.Sleep(100 * time.Millisecond)
	stop()
	if n := second.model.count(); n != 0 {
		t.Errorf("a settled study was read again (%d times)", n)
	}
}

// An object from outside under the UID of our document is not our document.
func TestLineDoesNotDeliverWhatIsNotOurs(t *testing.T) {
	b := newLine(t, newMemory())
	b.archive.foreign = true
	b.archive.documents["1.2.findings.1.0"] = Document{SOPInstanceUID: "1.2.findings.1.0", Bytes: []byte("something else")}
	b.start(t)
	b.archive.store("1.2", "frontal")
	b.Stored("1.2")
	s := b.until(t, "1.2", StateFailed)
	if !strings.Contains(s.Record.Error, "1.2.findings.1.0") || !strings.Contains(s.Record.Error, "not ours") || len(s.Record.Documents) > 0 {
		t.Errorf("record %+v", s.Record)
	}
	select {
	case docs := <-b.sent:
		t.Errorf("delivered %+v", docs)
	case <-time.After(50 * time.Millisecond):
	}
}

func TestLineTakesUpAStudyWhoseClaimWasLost(t *testing.T) {
	b := newLine(t, newMemory())
	b.Claims = &losing{oneClaim{held: map[string]bool{}}}
	b.model.block = make(chan struct{})
	b.archive.store("1.2", "frontal")
	wait, err := b.process(t.Context(), &memoryLease{job: Job{Name: "1.2"}})
	if err != nil || wait == 0 {
		t.Errorf("wait %v, error %v", wait, err)
	}
	if r := b.archive.records["1.2"]; len(r) != 0 {
		t.Errorf("a lost claim left a record %+v", r)
	}
}

// losing is a Claims whose claims are lost at once.
type losing struct{ oneClaim }

func (c *losing) Claim(ctx context.Context, key string) (context.Context, func(), bool, error) {
	held, cancel := context.WithCancel(ctx)
	cancel()
	_, release, ok, err := c.oneClaim.Claim(ctx, key)
	return held, release, ok, err
}

func TestLineStopsInTheMiddle(t *testing.T) {
	b := newLine(t, newMemory())
	b.model.block = make(chan struct{})
	stop := b.start(t)
	b.archive.store("1.2", "frontal")
	b.Stored("1.2")
	b.until(t, "1.2", StateReading)
	stop()
	if len(b.archive.records["1.2"]) != 0 {
		t.Errorf("a reading that was cut off left a record: %+v", b.archive.records["1.2"])
	}
}

// What is being read when the service stops is finished within Config.Stop, and nothing else is begun.
func TestLineFinishesWhatItReads(t *testing.T) { synctest.Test(t, finishesWhatItReads) }

func finishesWhatItReads(t *testing.T) {
	b := newLine(t, newMemory())
	b.Config.Stop, b.Config.Readers = time.Minute, 1
	b.model.block = make(chan struct{})
	stop := b.start(t)
	for _, study := range []string{"1.2", "1.3"} {
		b.archive.store(study, "frontal")
		b.Stored(study)
	}
	time.Sleep(time.Second)
	if b.model.count() != 1 {
		t.Fatalf("%d studies are read, want one", b.model.count())
	}
	go func() {
		time.Sleep(30 * time.Second)
		close(b.model.block)
	}()
	began := time.Now()
	stop()
	if took := time.Since(began); took < 30*time.Second || took >= time.Minute {
		t.Errorf("it stopped after %v", took)
	}
	if b.model.count() != 1 {
		t.Errorf("%d studies were read, want the one under way", b.model.count())
	}
	reported := 0
	for _, records := range b.archive.records {
		for _, r := range records {
			if r.State == StateReported {
				reported++
			}
		}
	}
	if reported != 1 {
		t.Errorf("%d studies are reported, want the one that was read", reported)
	}
}

// A line that only feeds the queue reads nothing, and a held report is released without a model unless something came since.
func TestLineFeeds(t *testing.T) { synctest.Test(t, feeds) }

func feeds(t *testing.T) {
	worker := newLine(t, newMemory())
	worker.model.held = "flagged"
	web := newLine(t, worker.archive)
	web.Studies, web.Feeds, web.Worker, web.Steps = worker.Studies, true, "web", Steps{}
	web.start(t)
	worker.archive.store("1.2", "frontal")
	web.Stored("1.2")
	time.Sleep(time.Second)
	if l, err := worker.archive.Life(t.Context(), "1.2"); err != nil || l.State == StateReading || worker.model.count() > 0 {
		t.Fatal(l, err)
	}
	worker.start(t)
	worker.until(t, "1.2", StateHeld)
	if err := web.Release(t.Context(), "1.2", "ada"); err != nil {
		t.Fatal(err)
	}
	worker.until(t, "1.2", StateReported)
	if worker.model.count() != 1 {
		t.Error("it was read again")
	}
}

// What was read survives whatever fails after that, and what was reported stays so.
func TestWhatWasReadIsKept(t *testing.T) {
	m := newMemory()
	m.store("1.2", "frontal")
	b := newLine(t, m)
	begin := func() Life {
		life, _, err := m.Begin(t.Context(), "1.2", func(Life) []Change { return []Change{{State: StateReading}} })
		if err != nil {
			t.Fatal(err)
		}
		return life
	}
	old, life := begin(), begin()
	rec := Record{Key: "k", StudyInstanceUID: "1.2", State: StateRead, Reading: &Reading{Revision: 3, Held: "as a test"}}
	stored := func(what string, state State) {
		t.Helper()
		records, err := m.Records(t.Context(), "1.2")
		if err != nil || len(records) != 1 || records[0].State != state || records[0].Reading == nil || records[0].Reading.Revision != 3 {
			t.Errorf("%s: %+v %v", what, records, err)
		}
	}
	b.keep(old, rec)
	if records, _ := m.Records(t.Context(), "1.2"); len(records) != 0 {
		t.Error("one that was taken over is kept")
	}
	b.keep(life, rec)
	stored("the service stops", StateRead)
	m.failAt = "record " + string(StateHeld)
	kept, err := b.detain(t.Context(), life, rec)
	if err == nil {
		t.Fatal("the archive has taken it")
	}
	if _, err := b.fail(t.Context(), life, "k", kept, err); err != nil {
		t.Fatal(err)
	}
	stored("it cannot be held", StateFailed)
	none := rec
	none.Reading = &Reading{Revision: 4, RunSeconds: math.NaN()}
	if _, err := b.fail(t.Context(), life, "k", none, errCrash); err != nil {
		t.Fatal(err)
	}
	stored("what was read now cannot be written", StateFailed)
	if _, err := m.UpdateRecord(t.Context(), life, "k", func(r *Record) { r.State = StateReported }); err != nil {
		t.Fatal(err)
	}
	if _, err := b.fail(t.Context(), life, "k", rec, errCrash); err != nil {
		t.Fatal(err)
	}
	b.keep(life, rec)
	stored("reported", StateReported)
}
