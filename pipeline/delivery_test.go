package pipeline

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

func TestLineDeliversUntilItIsTaken(t *testing.T) {
	b := newLine(t, newMemory())
	attempts := 0
	b.Destinations[0].Deliver = func(_ context.Context, _ Record, d []Document) error {
		if attempts++; attempts < 2 {
			return errors.New("not now")
		}
		b.sent <- d
		return nil
	}
	refused := errors.New("no")
	b.Destinations = append(b.Destinations, Destination{Name: "closed", Wanted: func(d []Document) []Document { return d },
		Permanent: func(err error) bool { return errors.Is(err, refused) }, Deliver: func(context.Context, Record, []Document) error { return refused }})
	b.start(t)
	b.archive.store("1.2", "frontal")
	b.Stored("1.2")
	<-b.sent
	for end := time.Now().Add(5 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		s := b.until(t, "1.2", StateReported)
		pacs, closed := s.Record.Deliveries["pacs"], s.Record.Deliveries["closed"]
		if pacs != nil && !pacs.Delivered.IsZero() && pacs.Attempts == 2 && closed != nil && closed.Dead {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("deliveries %+v %+v", pacs, closed)
		}
	}
}

// An image that comes while a study is read is not forgotten when what was read is delivered before the image's quiet time is over.
func TestAnImageWhileItIsReadOutlivesTheDelivery(t *testing.T) {
	b := newLine(t, newMemory())
	b.Config.Quiet, b.model.block = 300*time.Millisecond, make(chan struct{})
	b.start(t)
	b.archive.store("1.2", "frontal")
	b.Stored("1.2")
	until(t, "the model to read", func() bool { return b.model.count() == 1 })
	b.archive.store("1.2", "frontal, late")
	b.Stored("1.2")
	close(b.model.block)
	<-b.sent
	until(t, "the model to read the late image too", func() bool { return b.model.count() == 2 })
	<-b.sent
	if s := b.until(t, "1.2", StateDelivered); len(s.Record.Reading.Refused) != 1 {
		t.Errorf("the last reading leaves out %+v, want the image that is not first", s.Record.Reading.Refused)
	}
}

// undelivered fills an archive with n studies that are reported and on their way to the destination "pacs".
func undelivered(n int) *memory {
	m := newMemory()
	for i := range n {
		uid := fmt.Sprintf("1.2.%d", i)
		m.store(uid, "frontal")
		m.lives[uid].State, m.open[uid] = StateReported, false
		doc := Document{Kind: FindingsSR, StudyInstanceUID: uid, SOPInstanceUID: uid + ".9"}
		m.documents[doc.SOPInstanceUID] = doc
		m.records[uid] = []Record{{Key: "k", StudyInstanceUID: uid, State: StateReported, Reading: &Reading{}, Completed: time.Now(),
			Documents: []DocumentRef{{SOPInstanceUID: doc.SOPInstanceUID}}, Deliveries: map[string]*Delivery{"pacs": {}}}}
	}
	return m
}

// Many deliveries that wait cost neither goroutines nor documents in memory.
func TestDeliveriesAreBounded(t *testing.T) {
	const studies = 500
	b := newLine(t, undelivered(studies))
	var running, most, delivered atomic.Int32
	block := make(chan struct{})
	b.Destinations[0].Parallel = 3
	b.Destinations[0].Deliver = func(ctx context.Context, _ Record, _ []Document) error {
		n := running.Add(1)
		defer running.Add(-1)
		for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
		}
		select {
		case <-block:
		case <-ctx.Done():
		}
		delivered.Add(1)
		return ctx.Err()
	}
	before := runtime.NumGoroutine()
	b.start(t)
	until(t, "three deliveries to run", func() bool { return running.Load() == 3 && waiting(b.Destinations[0].Queue) == studies-3 })
	if n := runtime.NumGoroutine() - before; n > 20 {
		t.Errorf("%d goroutines for %d studies", n, studies)
	}
	close(block)
	until(t, "all of them", func() bool { return delivered.Load() == studies && running.Load() == 0 })
	if n := most.Load(); n != 3 {
		t.Errorf("%d deliveries at the same time, want 3", n)
	}
}

// A delivery that fails takes no other's place.
func TestAFailedDeliveryHoldsUpNobody(t *testing.T) {
	b := newLine(t, undelivered(30))
	var failed, delivered atomic.Int32
	b.Destinations[0].Parallel = 1
	b.Destinations[0].Deliver = func(_ context.Context, _ Record, docs []Document) error {
		if docs[0].StudyInstanceUID < "1.2.2" {
			failed.Add(1)
			return errors.New("not now")
		}
		delivered.Add(1)
		return nil
	}
	b.start(t)
	until(t, "the others to be delivered", func() bool { return delivered.Load() == 18 })
	if n := failed.Load(); n < 12 {
		t.Errorf("%d deliveries failed, want each of 12 once", n)
	}
}

func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited in vain for %s", what)
		}
	}
}

// waiting is how many jobs of a queue nobody has.
func waiting(q Queue) (n int) {
	lanes, _, _ := q.Size(context.Background())
	for _, k := range lanes {
		n += k
	}
	return n
}

// A process that ends between a study's last delivery and its note leaves no study that is reported for ever.
func TestACrashAfterTheLastDelivery(t *testing.T) {
	m := undelivered(1)
	b := newLine(t, m)
	var sent atomic.Int32
	b.Destinations[0].Deliver = func(context.Context, Record, []Document) error {
		m.mu.Lock()
		defer m.mu.Unlock()
		m.failAt = "record " + string(StateReported) // the process ends before the delivery is noted
		sent.Add(1)
		return nil
	}
	stop := b.start(t)
	until(t, "a delivery", func() bool { return sent.Load() > 0 })
	stop()
	if l, err := m.Life(t.Context(), "1.2.0"); err != nil || l.State != StateReported {
		t.Errorf("%+v, %v", l, err)
	}
	m.mu.Lock()
	m.failAt = ""
	m.mu.Unlock()
	again := newLine(t, m)
	again.start(t)
	if docs := <-again.sent; len(docs) != 1 {
		t.Errorf("%d documents", len(docs))
	}
	again.until(t, "1.2.0", StateDelivered)
	until(t, "the delivery to be noted", func() bool { all, _, err := again.Tasks(t.Context(), "", 10); return err == nil && len(all) == 0 })
}

// An image that comes while its study is read is read as well, although the documents of the first reading are delivered before its quiet time ends.
func TestALateImageOutlivesADelivery(t *testing.T) {
	b := newLine(t, newMemory())
	b.Config.Quiet = 300 * time.Millisecond
	b.model.block = make(chan struct{}, 2)
	b.start(t)
	b.send("1.2", "frontal1")
	b.until(t, "1.2", StateReading)
	b.send("1.2", "frontal2")
	b.model.block <- struct{}{}
	<-b.sent
	b.model.block <- struct{}{}
	select {
	case <-b.sent:
	case <-time.After(10 * time.Second):
		t.Fatal("the late image was never read")
	}
	if s := b.until(t, "1.2", StateDelivered); s.Record.Reading.Revision != 2 {
		t.Errorf("revision %d", s.Record.Reading.Revision)
	}
}

// While the archive's disk is full nothing is delivered twice, little is delivered at all, and notes are made less and less often; afterwards all goes on.
func TestDeliveriesOnAFullDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := undelivered(100)
		m.failAt = "record " + string(StateReported)
		b := newLine(t, m)
		sent := map[string]int{}
		b.Destinations[0].Deliver = func(_ context.Context, r Record, _ []Document) error {
			m.mu.Lock()
			defer m.mu.Unlock()
			sent[r.StudyInstanceUID]++
			return nil
		}
		b.start(t)
		time.Sleep(10 * time.Minute)
		m.mu.Lock()
		if n := len(sent); n < 1 || n > 50 {
			t.Errorf("%d of 100 were delivered, want the first few", n)
		}
		m.failAt = ""
		m.mu.Unlock()
		time.Sleep(time.Minute)
		m.mu.Lock()
		defer m.mu.Unlock()
		for uid, all := range m.records {
			if d := all[0].Deliveries["pacs"]; sent[uid] != 1 || d.Delivered.IsZero() || d.Attempts != 1 {
				t.Errorf("study %s: delivered %d times, noted %+v", uid, sent[uid], d)
			}
		}
		if len(sent) != 100 || len(b.unnoted.made) != 0 {
			t.Errorf("%d delivered, %d still remembered", len(sent), len(b.unnoted.made))
		}
	})
}

// What was delivered before the study was deleted and came again says nothing about the new documents, and what is remembered is bounded.
func TestWhatIsRememberedOfDeliveries(t *testing.T) {
	now := time.Now()
	var u unnoted
	u.add("pacs 1.2 k", now)
	if was, _ := u.known("pacs 1.2 k", now, now); !was {
		t.Error("a delivery is forgotten")
	}
	if was, _ := u.known("pacs 1.2 k", now.Add(time.Second), now); was {
		t.Error("a later record passes for delivered")
	}
	first := u.failed("pacs 1.2 k", now)
	for range 8 {
		u.failed("pacs 1.2 k", now)
	}
	if last := u.failed("pacs 1.2 k", now); last.Sub(now) < 20*first.Sub(now) {
		t.Errorf("the wait grows from %v to %v", first.Sub(now), last.Sub(now))
	}
	for i := range 2 * mostUnnoted {
		u.add(fmt.Sprint(i), now)
	}
	if n := len(u.made); n != mostUnnoted {
		t.Errorf("%d are remembered, want %d", n, mostUnnoted)
	}
}
