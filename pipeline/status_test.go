package pipeline

import (
	"errors"
	"testing"
	"time"
)

// Which record tells where a study stands, and what its state is, over the states of its life and of its records. a was read first; b is of another model or of
// other images.
func TestStatus(t *testing.T) {
	at := time.Now()
	read := func(key string, revision, turn int, state State) Record {
		return Record{Key: key, StudyInstanceUID: "1.2", State: state, Turn: turn, Reading: &Reading{Revision: revision}, Completed: at.Add(time.Duration(revision) * time.Minute)}
	}
	unread := func(key string, turn int, state State, minutes int) Record {
		return Record{Key: key, StudyInstanceUID: "1.2", State: state, Turn: turn, Completed: at.Add(time.Duration(minutes) * time.Minute)}
	}
	delivered := read("a", 1, 0, StateReported)
	delivered.Deliveries = map[string]*Delivery{"pacs": {Delivered: at}}
	for _, c := range []struct {
		what    string
		life    State
		records []Record
		state   State
		key     string // of the record that is shown; empty for none
	}{
		{"nothing was read", StateQueued, nil, StateQueued, ""},
		{"reported", StateReported, []Record{read("a", 1, 0, StateReported)}, StateReported, "a"},
		{"delivered", StateDelivered, []Record{delivered}, StateDelivered, "a"},
		{"b failed for good, a's model is back", StateReported, []Record{read("a", 1, 0, StateReported), read("b", 2, 0, StateFailed)}, StateReported, "a"},
		{"the same, delivered", StateDelivered, []Record{delivered, read("b", 2, 0, StateFailed)}, StateDelivered, "a"},
		{"the same, by a clock that was ahead", StateReported, []Record{unread("b", 0, StateFailed, 60), read("a", 1, 0, StateReported)}, StateReported, "a"},
		{"b was read, and waits to be stored, a's model is back", StateReported, []Record{read("a", 1, 0, StateReported), read("b", 2, 0, StateRead)}, StateReported, "a"},
		{"b is held, a's model is back", StateReported, []Record{read("a", 1, 0, StateReported), read("b", 2, 0, StateHeld)}, StateReported, "a"},
		{"b refused the images, a's model is back", StateReported, []Record{read("a", 1, 0, StateReported), unread("b", 0, StateRefused, 60)}, StateReported, "a"},
		{"both are reported", StateReported, []Record{read("a", 1, 0, StateReported), read("b", 2, 0, StateReported)}, StateReported, "b"},
		{"a's images are those of the study again", StateReported, []Record{read("a", 1, 3, StateReported), read("b", 2, 0, StateReported)}, StateReported, "a"},
		{"b's are, again", StateReported, []Record{read("a", 1, 3, StateReported), read("b", 2, 4, StateReported)}, StateReported, "b"},
		{"b is withdrawn", StateReported, []Record{read("a", 1, 0, StateReported), read("b", 2, 0, StateWithdrawn)}, StateReported, "a"},
		{"a is withdrawn, its life does not know yet, b failed", StateReported, []Record{read("a", 1, 0, StateWithdrawn), read("b", 2, 0, StateFailed)}, StateWithdrawn, "a"},
		{"all are withdrawn", StateWithdrawn, []Record{read("a", 1, 0, StateWithdrawn), read("b", 2, 0, StateWithdrawn)}, StateWithdrawn, "b"},
		{"b fails", StateFailed, []Record{read("a", 1, 0, StateReported), read("b", 2, 0, StateFailed)}, StateFailed, "b"},
		{"b fails before anything is read", StateFailed, []Record{read("a", 1, 0, StateReported), unread("b", 2, StateFailed, -60)}, StateFailed, "b"},
		{"b is held", StateHeld, []Record{read("a", 1, 0, StateReported), read("b", 2, 0, StateHeld)}, StateHeld, "b"},
		{"a is held, b failed, a's model is back", StateHeld, []Record{read("a", 1, 0, StateHeld), read("b", 2, 0, StateFailed)}, StateHeld, "a"},
		{"both are held, a's model is back", StateHeld, []Record{read("a", 1, 3, StateHeld), read("b", 2, 0, StateHeld)}, StateHeld, "a"},
		{"images are missing, a was reported", StateHeld, []Record{read("a", 1, 0, StateReported)}, StateHeld, "a"},
		{"not read, because images are missing; a was reported", StateRefused, []Record{read("a", 1, 0, StateReported)}, StateRefused, "a"},
		{"refused", StateRefused, []Record{unread("a", 0, StateRefused, 1)}, StateRefused, "a"},
		{"read again", StateReading, []Record{read("a", 1, 0, StateReported), read("b", 2, 0, StateFailed)}, StateReading, "b"},
	} {
		t.Run(c.what, func(t *testing.T) {
			b := newLine(t, newMemory())
			b.archive.store("1.2", "frontal")
			b.archive.lives["1.2"].State, b.archive.records["1.2"] = c.life, c.records
			s, err := b.Status(t.Context(), "1.2")
			key := ""
			if s.Record != nil {
				key = s.Record.Key
			}
			if err != nil || s.State != c.state || key != c.key {
				t.Errorf("it is %s by record %q (%v), want %s by %q", s.State, key, err, c.state, c.key)
			}
		})
	}
}

// models gives the line another model version, as a worker of another bundle would have.
func (b *bench) models(version string) {
	b.model.version = version
}

// look has a study looked at, which another lateral image causes.
func (b *bench) look(t *testing.T, instance string, want State) Status {
	t.Helper()
	b.archive.store("1.2", instance)
	b.study(t.Context(), &memoryLease{job: Job{Name: "1.2"}})
	s, err := b.Status(t.Context(), "1.2")
	if err != nil || s.State != want {
		t.Fatalf("%s (%v), want %s: %+v", s.State, err, want, b.steps(t, "1.2"))
	}
	return s
}

// A model that fails, or whose reports are held, and is taken back: what the study has is what is shown, and can be released.
func TestAModelIsTakenBack(t *testing.T) {
	b := newLine(t, newMemory())
	first := b.look(t, "frontal", StateReported).Record
	write := b.Steps.Write
	b.models("2")
	b.Steps.Write = func(*Study, *Reading, []Record) ([]Document, error) { return nil, errors.Join(ErrModel) }
	if s := b.look(t, "lateral1", StateFailed); s.Record.Key == first.Key {
		t.Error("a study that has failed is shown by the report that it had")
	}
	b.Steps.Write = write
	b.models("")
	if s := b.look(t, "lateral2", StateReported); s.Record.Key != first.Key || s.Record.Error != "" {
		t.Errorf("shown is %+v", s.Record)
	}

	// The second model reads it after all; the first one is back: the second one's documents have taken the place of the first one's.
	b.models("2")
	second := b.look(t, "lateral3", StateReported).Record
	b.models("")
	if s := b.look(t, "lateral4", StateReported); s.Record.Key != second.Key {
		t.Errorf("shown is %+v", s.Record)
	}

	// Another image, and it goes again: nothing is read, and what is shown is about the images that are here.
	both := b.look(t, "frontal2", StateReported).Record
	if both.Key == second.Key || both.Reading.Revision != 3 {
		t.Fatalf("%+v", both)
	}
	b.archive.forget("1.2", "frontal2")
	if s := b.look(t, "lateral5", StateReported); s.Record.Key != second.Key {
		t.Errorf("shown is %+v", s.Record)
	}
	b.look(t, "frontal2", StateReported)
	if s := b.look(t, "lateral6", StateReported); s.Record.Key != both.Key || b.model.count() != 3 {
		t.Errorf("shown is %+v, read %d times", s.Record, b.model.count())
	}
}

func TestAModelThatHoldsIsTakenBack(t *testing.T) {
	b := newLine(t, newMemory())
	b.model.held = "flagged"
	first := b.look(t, "frontal", StateHeld).Record
	b.models("2")
	second := b.look(t, "lateral1", StateHeld).Record
	if second.Key == first.Key {
		t.Fatal("the second model has not read it")
	}
	b.models("")
	if s := b.look(t, "lateral2", StateHeld); s.Record.Key != first.Key {
		t.Errorf("shown is %+v", s.Record)
	}
	if err := b.Release(t.Context(), "1.2", "ada"); err != nil {
		t.Fatal(err)
	}
	b.study(t.Context(), &memoryLease{job: Job{Name: "1.2"}})
	if s, err := b.Status(t.Context(), "1.2"); err != nil || s.State != StateReported || s.Record.Key != first.Key || b.model.count() != 2 {
		t.Errorf("%+v, %v, read %d times", s, err, b.model.count())
	}

	// What was held is released after another model's report: it comes after that, and names it as its predecessor.
	b = newLine(t, newMemory())
	b.model.held = "flagged"
	b.look(t, "frontal", StateHeld)
	b.models("2")
	b.model.held = ""
	b.look(t, "lateral1", StateReported)
	b.models("")
	b.look(t, "lateral2", StateHeld)
	if err := b.Release(t.Context(), "1.2", "ada"); err != nil {
		t.Fatal(err)
	}
	b.study(t.Context(), &memoryLease{job: Job{Name: "1.2"}})
	s, err := b.Status(t.Context(), "1.2")
	if err != nil || s.State != StateReported || s.Record.Reading.Revision != 3 || s.Record.Documents[0].SOPInstanceUID != "1.2.findings.3.1" {
		t.Errorf("%+v, %v", s.Record, err)
	}
}
