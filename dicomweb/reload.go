package dicomweb

import (
	"os"
	"sync"
	"time"

	"github.com/rs/zerolog"
)

// watched is what was made from files, made anew when one of them changes. A change that cannot be used is logged once and leaves what
// was there. The files are looked at when the value is asked for, at most every lookEvery.
type watched[T any] struct {
	files []string
	load  func() (T, error)
	log   zerolog.Logger
	clock func() time.Time

	mu      sync.Mutex
	current T
	stamp   string
	looked  time.Time
}

const lookEvery = 2 * time.Second

// watch makes the value for the first time.
func watch[T any](files []string, load func() (T, error), log zerolog.Logger) (*watched[T], error) {
	w := &watched[T]{files: files, load: load, log: log, clock: time.Now}
	w.stamp, w.looked = w.look(), w.clock()
	var err error
	w.current, err = load()
	return w, err
}

// look describes the files: a renewed one differs in time or size, wherever a link of Kubernetes leads.
func (w *watched[T]) look() string {
	s := ""
	for _, f := range w.files {
		if info, err := os.Stat(f); err == nil {
			s += info.ModTime().UTC().Format(time.RFC3339Nano) + " " + time.Duration(info.Size()).String() + "\n"
		} else {
			s += "-\n"
		}
	}
	return s
}

func (w *watched[T]) value() T {
	w.mu.Lock()
	defer w.mu.Unlock()
	if now := w.clock(); now.Sub(w.looked) >= lookEvery {
		w.looked = now
		if stamp := w.look(); stamp != w.stamp {
			w.stamp = stamp
			if v, err := w.load(); err != nil {
				w.log.Error().Strs("files", w.files).Err(err).Msg("changed files cannot be used; what they said before stays in force")
			} else {
				w.current = v
				w.log.Info().Strs("files", w.files).Msg("changed files are in force")
			}
		}
	}
	return w.current
}
