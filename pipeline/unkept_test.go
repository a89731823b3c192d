package pipeline

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"
)

func (m *memory) fails(at string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.failAt = at
}

// While neither a report nor its failure can be noted nothing is read again; the next attempt after that reports what was read.
func TestAReadingOutlivesTheIndex(t *testing.T) {
	for what, held := range map[string]string{"reported": "", "held": "flagged"} {
		t.Run(what, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newLine(t, newMemory())
				b.model.held = held
				b.start(t)
				b.archive.fails("record ")
				b.send("1.2", "frontal")
				time.Sleep(10 * time.Minute)
				if n := b.model.count(); n != 1 || len(b.unkept.studies()) != 1 {
					t.Errorf("read %d times, %d readings are remembered", n, len(b.unkept.studies()))
				}
				b.archive.fails("")
				time.Sleep(10 * time.Minute)
				b.until(t, "1.2", State(what))
				if n := b.model.count(); n != 1 || len(b.unkept.studies()) != 0 {
					t.Errorf("read %d times, %d readings are remembered", n, len(b.unkept.studies()))
				}
			})
		})
	}
}

// What was read of a study that is put down while the index is away is reported by the next attempt of this process, and by no other one.
func TestAReadingThatIsPutDown(t *testing.T) {
	for what, want := range map[string]struct {
		reads    int
		revision int
		then     func(b *bench)
	}{
		"nothing else happens":      {0, 1, func(*bench) {}},
		"it is held and let go":     {1, 1, func(b *bench) { b.Hold("1.2")() }}, // deleted, say, and sent again
		"another image comes":       {1, 1, func(b *bench) { b.archive.store("1.2", "frontal2") }},
		"another model has read it": {0, 2, func(b *bench) { b.archive.records["1.2"] = []Record{another} }},
	} {
		t.Run(what, func(t *testing.T) {
			b := newLine(t, newMemory())
			b.archive.store("1.2", "frontal")
			st, err := b.archive.Study(t.Context(), "1.2")
			if err != nil {
				t.Fatal(err)
			}
			reading, err := b.model.Read(t.Context(), &Image{Instance: st.Instances[0]})
			if err != nil {
				t.Fatal(err)
			}
			b.model.reads, reading.Revision, reading.Inputs = 0, 1, []InputRef{InputOf(st.Instances[0], 0)}
			b.archive.fails("record ")
			b.keep(Life{StudyInstanceUID: "1.2"}, Record{Key: b.Steps.Key(st), StudyInstanceUID: "1.2", State: StateRead, Reading: reading})
			b.archive.fails("")
			want.then(b)
			b.study(context.Background(), &memoryLease{job: Job{Name: "1.2"}})
			s := b.until(t, "1.2", StateReported)
			if n := b.model.count(); n != want.reads || s.Record.Reading.Revision != want.revision || len(b.unkept.studies()) != 0 {
				t.Errorf("read %d times, revision %d, %d readings are remembered", n, s.Record.Reading.Revision, len(b.unkept.studies()))
			}
		})
	}
}

var another = Record{Key: "another", StudyInstanceUID: "1.2", State: StateReported, Reading: &Reading{Revision: 1}, Documents: []DocumentRef{{SOPInstanceUID: "1.2.3"}}}

// What is remembered of readings is bounded, and goes with its study.
func TestWhatIsRememberedOfReadings(t *testing.T) {
	b := newLine(t, newMemory())
	rec := func(study string) Record {
		return Record{Key: "k", StudyInstanceUID: study, State: StateRead, Reading: &Reading{}}
	}
	for i := range 2 * mostUnkept {
		b.unkept.add(rec(fmt.Sprint("1.3.", i)))
	}
	if n := len(b.unkept.studies()); n != mostUnkept {
		t.Errorf("%d are remembered, want %d", n, mostUnkept)
	}
	b.sweep(t.Context())
	if n := len(b.unkept.studies()); n != 0 {
		t.Errorf("%d are remembered of studies that are not here", n)
	}
	b.archive.store("1.2", "frontal")
	b.unkept.add(rec("1.2"))
	b.sweep(t.Context())
	if n := len(b.unkept.studies()); n != 1 {
		t.Error("one that is still to be reported is forgotten")
	}
	b.archive.lives["1.2"].State, b.archive.open["1.2"] = StateReported, false
	b.sweep(t.Context())
	if n := len(b.unkept.studies()); n != 0 {
		t.Error("one that another worker has reported is remembered")
	}
	none := rec("1.2")
	none.Reading = nil
	if b.unkept.add(none); len(b.unkept.studies()) != 0 {
		t.Error("what was not read is remembered")
	}
}
