package pipeline

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"
)

// memoryQueue is a Queue of this process by this process's clock, so that tests can run on time of their own. That the real one behaves so
// is shown in jobs.
type memoryQueue struct {
	mu      sync.Mutex
	jobs    map[string]*memoryJob
	change  chan struct{} // closed at every change
	emptied bool
	err     error // of every call, when set
}

type memoryJob struct {
	job   Job
	taken *memoryLease
	again time.Time
}

func newMemoryQueue() *memoryQueue {
	return &memoryQueue{jobs: map[string]*memoryJob{}, change: make(chan struct{}), emptied: true}
}

// lock returns what every change ends with.
func (q *memoryQueue) lock() (changed func()) {
	q.mu.Lock()
	return func() { close(q.change); q.change = make(chan struct{}); q.mu.Unlock() }
}

func (q *memoryQueue) Put(_ context.Context, j Job) error {
	defer q.lock()()
	if x := q.jobs[j.Name]; x != nil && x.taken != nil {
		x.again = j.Due
	} else {
		q.jobs[j.Name] = &memoryJob{job: j}
	}
	return q.err
}

func (q *memoryQueue) Restore(_ context.Context, all []Job) error {
	defer q.lock()()
	for _, j := range all {
		if q.jobs[j.Name] == nil {
			q.jobs[j.Name] = &memoryJob{job: j}
		}
	}
	return q.err
}

func (q *memoryQueue) Drop(_ context.Context, name string) error {
	defer q.lock()()
	delete(q.jobs, name)
	return q.err
}

func (q *memoryQueue) Emptied(context.Context) (bool, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	was := q.emptied
	q.emptied = false
	return was, q.err
}

func (q *memoryQueue) Size(context.Context) (map[Lane]int, int, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	waiting, taken := map[Lane]int{}, 0
	for _, x := range q.jobs {
		if x.taken != nil {
			taken++
		} else {
			waiting[x.job.Lane]++
		}
	}
	return waiting, taken, q.err
}

func (q *memoryQueue) Take(ctx context.Context) (Lease, error) {
	for {
		q.mu.Lock()
		var first *memoryJob
		rank := func(x *memoryJob) int { // what is due comes before what is not, and in the order of the lanes
			if x.job.Due.After(time.Now()) {
				return len(Lanes) + 1
			}
			return x.job.Lane.Number()
		}
		for _, n := range slices.Sorted(maps.Keys(q.jobs)) {
			x := q.jobs[n]
			if x.taken == nil && (first == nil || rank(x) < rank(first) || rank(x) == rank(first) && x.job.Due.Before(first.job.Due)) {
				first = x
			}
		}
		pause, change, err := time.Hour, q.change, q.err
		if first != nil && err == nil {
			if pause = time.Until(first.job.Due); pause <= 0 && ctx.Err() == nil {
				l := &memoryLease{q: q, job: first.job, since: time.Now()}
				l.held, l.cancel = context.WithCancel(context.Background())
				first.taken = l
				q.mu.Unlock()
				return l, nil
			}
		}
		q.mu.Unlock()
		if err != nil {
			return nil, err
		}
		timer := time.NewTimer(pause)
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil, ctx.Err()
		case <-change:
		case <-timer.C:
		}
		timer.Stop()
	}
}

type memoryLease struct {
	q      *memoryQueue
	job    Job
	since  time.Time
	held   context.Context
	cancel context.CancelFunc
}

func (l *memoryLease) Job() Job              { return l.job }
func (l *memoryLease) Since() time.Time      { return l.since }
func (l *memoryLease) Asked() time.Time      { return l.since }
func (l *memoryLease) Held() context.Context { return l.held }

func (l *memoryLease) Done(_ context.Context, again time.Time) error {
	defer l.q.lock()()
	l.cancel()
	x := l.q.jobs[l.job.Name]
	if x == nil || x.taken != l {
		return nil
	}
	if !x.again.IsZero() && (again.IsZero() || x.again.Before(again)) {
		again = x.again
	}
	delete(l.q.jobs, l.job.Name)
	if !again.IsZero() {
		l.q.jobs[l.job.Name] = &memoryJob{job: Job{Name: l.job.Name, Lane: l.job.Lane, Due: again}}
	}
	return nil
}

// arrive notes in the life of a study that something has come. m.mu is held.
func (m *memory) arrive(study string) {
	l := m.lives[study]
	if l == nil {
		l = &Life{StudyInstanceUID: study, First: time.Now()}
		m.lives[study] = l
	}
	l.News++
	l.Received, l.Attempts, l.Next = time.Now(), 0, time.Time{}
	m.open[study] = true
	if l.State != StateReading {
		m.note(l, Change{At: time.Now(), State: StateReceiving})
	}
}

func (m *memory) note(l *Life, c Change) {
	l.Change = c
	m.changes[l.StudyInstanceUID] = append(m.changes[l.StudyInstanceUID], c)
}

func (m *memory) steps(study string) []Change {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.changes[study])
}

func (m *memory) Life(_ context.Context, study string) (Life, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if l := m.lives[study]; l != nil {
		out := *l
		out.Open = m.open[study]
		out.Lane = LaneOffPeak
		for _, in := range cmp.Or(m.studies[study], &Study{}).Instances {
			if lane := in.Header.Lane(); lane.Number() < out.Lane.Number() {
				out.Lane = lane
			}
		}
		return out, nil
	}
	return Life{}, fmt.Errorf("study %s: %w", study, ErrNotFound)
}

func (m *memory) Unsettled(_ context.Context, after string, most int) (out []Life, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, uid := range slices.Sorted(maps.Keys(m.lives)) {
		if m.open[uid] && uid > after && len(out) < most {
			out = append(out, *m.lives[uid])
		}
	}
	return out, nil
}

func (m *memory) Outgoing(_ context.Context, after string, most int) (out []Record, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, all := range m.records {
		for _, r := range all {
			if r.Outgoing() && r.name() > after {
				out = append(out, fromDisk(r))
			}
		}
	}
	slices.SortFunc(out, func(a, b Record) int {
		if a.name() < b.name() {
			return -1
		}
		return 1
	})
	return out[:min(len(out), most)], nil
}

func (m *memory) Complete(_ context.Context, since time.Time, _ int, steps ...Change) (int, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for uid, l := range m.lives {
		if l.State == StateReceiving && m.open[uid] && !l.Received.After(since) {
			for _, c := range steps {
				m.note(l, c)
			}
		}
	}
	return 0, nil
}

func (m *memory) Undone(_ context.Context, after string, most int) (out []string, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, uid := range slices.Sorted(maps.Keys(m.lives)) {
		l := m.lives[uid]
		outgoing := slices.ContainsFunc(m.records[uid], func(r Record) bool { return r.Outgoing() || r.GivenUp() })
		if uid > after && len(out) < most && (m.open[uid] || l.State == StateHeld || l.State == StateFailed || outgoing) {
			out = append(out, uid)
		}
	}
	return out, nil
}

func (m *memory) Begin(_ context.Context, study string, steps func(Life) []Change) (Life, []Record, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	l := m.lives[study]
	if l == nil {
		return Life{}, nil, fmt.Errorf("study %s: %w", study, ErrNotFound)
	}
	now := *l
	now.Open = m.open[study]
	all := steps(now)
	if len(all) == 0 {
		return now, slices.Clone(m.records[study]), nil
	}
	for _, c := range all {
		m.note(l, c)
	}
	l.Fence++
	l.Attempts++
	m.open[study] = true
	return *l, slices.Clone(m.records[study]), nil
}

func (m *memory) Move(_ context.Context, by Life, c Change) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.move(by, c)
}

func (m *memory) move(by Life, c Change) error {
	l := m.lives[by.StudyInstanceUID]
	switch {
	case l == nil:
		return fmt.Errorf("study %s: %w", by.StudyInstanceUID, ErrNotFound)
	case by.Fence != 0 && by.Fence != l.Fence:
		return ErrLost
	}
	m.note(l, c)
	m.open[l.StudyInstanceUID] = !c.Settles() || by.Fence != 0 && by.News != l.News
	if c.State == StateQueued {
		l.Attempts = max(0, l.Attempts-1)
	} else if !slices.Contains([]State{StateFailed, StateComplete, StateReading}, c.State) {
		l.Attempts = 0
	}
	return nil
}

func (m *memory) UpdateRecord(ctx context.Context, l Life, key string, change func(*Record), steps ...Change) (Record, error) {
	return m.Report(ctx, l, key, nil, change, steps...)
}

func (m *memory) Report(_ context.Context, l Life, key string, docs []Document, change func(*Record), steps ...Change) (Record, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	uid := l.StudyInstanceUID
	if x := m.lives[uid]; l.Fence != 0 && (x == nil || x.Fence != l.Fence) {
		return Record{}, ErrLost
	}
	r := Record{Key: key, StudyInstanceUID: uid}
	i := slices.IndexFunc(m.records[uid], func(r Record) bool { return r.Key == key })
	if i >= 0 {
		r = fromDisk(m.records[uid][i])
	}
	change(&r)
	for _, d := range docs {
		if err := m.step("document " + string(d.Kind)); err != nil {
			return r, err
		}
		if _, ok := m.documents[d.SOPInstanceUID]; ok && m.foreign {
			return r, fmt.Errorf("%w: document %s is not ours", ErrConflict, d.SOPInstanceUID)
		}
	}
	if err := m.step("record " + string(r.State)); err != nil {
		return r, err
	}
	if i < 0 {
		m.records[uid] = append(m.records[uid], fromDisk(r))
	} else {
		m.records[uid][i] = fromDisk(r)
	}
	for _, d := range docs {
		m.documents[d.SOPInstanceUID] = d
	}
	for _, c := range steps {
		if x := m.lives[uid]; x != nil {
			now := *x
			if now.Open = m.open[uid]; !c.Applies(now, r) {
				continue
			}
			if c.State == "" {
				c.State = now.State
				m.changes[uid] = append(m.changes[uid], c)
				continue
			}
		}
		if err := m.move(l, c); err != nil {
			return r, err
		}
	}
	return r, nil
}

func (q *memoryQueue) has(name string) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.jobs[name] != nil
}
