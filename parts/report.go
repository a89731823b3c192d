package parts

import (
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"golang.org/x/term"
)

// plainEvery is the time between two lines about one package where the output is no terminal.
const plainEvery = 10 * time.Second

// report tells a person how a fetch goes on: one line for each step, and a bar on a terminal.
type report struct {
	w     io.Writer
	label string
	tty   bool
	drawn bool      // a bar stands in the current line
	last  time.Time // of the last plain line
}

func newReport(w io.Writer, label string) *report {
	if w == nil {
		w = io.Discard
	}
	f, ok := w.(*os.File)
	return &report{w: w, label: label, tty: ok && term.IsTerminal(int(f.Fd()))}
}

func (r *report) line(format string, args ...any) {
	r.clear()
	fmt.Fprintf(r.w, "%s: %s\n", r.label, fmt.Sprintf(format, args...))
	r.last = time.Now()
}

// bar shows n of size bytes.
func (r *report) bar(n, size int64) {
	percent := int(100 * n / size)
	if !r.tty {
		if time.Since(r.last) >= plainEvery {
			r.line("%d %% of %s", percent, megabytes(size))
		}
		return
	}
	const width = 30
	full := width * percent / 100
	fmt.Fprintf(r.w, "\r\x1b[K%s [%s%s] %3d %% of %s", r.label, strings.Repeat("#", full), strings.Repeat(".", width-full), percent, megabytes(size))
	r.drawn = true
}

// endBar leaves a full bar behind a fetch that went well, and nothing behind one that did not.
func (r *report) endBar(ok bool, size int64) {
	if !r.tty {
		return
	}
	if ok {
		r.bar(size, size)
		fmt.Fprintln(r.w)
		r.drawn = false
	}
	r.clear()
}

func (r *report) clear() {
	if r.drawn {
		fmt.Fprint(r.w, "\r\x1b[K")
		r.drawn = false
	}
}

// megabytes writes a size as registries do: millions of bytes.
func megabytes(n int64) string { return fmt.Sprintf("%.1f MB", float64(n)/1e6) }
