package parts

import (
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// pythonVersion is what the pinned wheels of compiled packages are built for; the running Python's own does not matter.
const pythonVersion = "3.12"

// runTool has pip or npm put the part's package into out, showing how the bytes arrive in tmp.
func runTool(ctx context.Context, p Part, b Build, tmp, out string, r *report) error {
	argv, err := toolCommand(ctx, p, b, out)
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Dir = out
	cmd.Env = append(os.Environ(), "TMPDIR="+tmp)
	cmd.WaitDelay = 5 * time.Second
	said := &tail{keep: 32 << 10}
	cmd.Stdout, cmd.Stderr = said, said
	r.line("fetching %s with %s", megabytes(b.Size), p.Kind)
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("%w: %s cannot be started: %w", ErrTool, argv[0], err)
	}
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	tick := time.NewTicker(150 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case err := <-done:
			r.endBar(err == nil, b.Size)
			if ctx.Err() != nil {
				return stopped(ctx, p)
			}
			if err != nil {
				return toolError(p, b, out, said.String())
			}
			return nil
		case <-tick.C:
			r.bar(min(largestFile(tmp), b.Size), b.Size)
		}
	}
}

// toolCommand is the command line that fetches a package by its name.
func toolCommand(ctx context.Context, p Part, b Build, out string) ([]string, error) {
	if p.Kind == "npm" {
		npm, err := exec.LookPath("npm")
		if err != nil {
			return nil, noTool(p, b, "npm is not in PATH: install Node.js with npm (Debian: apt-get install npm)")
		}
		return []string{npm, "pack", p.Package + "@" + p.Version, "--ignore-scripts", "--loglevel=error",
			"--no-update-notifier", "--fetch-retries=2", "--fetch-retry-mintimeout=1000", "--fetch-retry-maxtimeout=5000"}, nil
	}
	pip, err := findPip(ctx, p, b)
	if err != nil {
		return nil, err
	}
	return append(pip, "download", "--quiet", "--disable-pip-version-check", "--no-input", "--no-cache-dir", "--progress-bar", "off",
		"--retries", "2", "--no-deps", "--only-binary=:all:", "--python-version", pythonVersion, "--implementation", "cp",
		"--platform", b.Tag, "--dest", out, p.Package+"=="+p.Version), nil
}

// findPip returns the words that start pip: python3's own module, else a pip program.
func findPip(ctx context.Context, p Part, b Build) ([]string, error) {
	python, err := exec.LookPath("python3")
	if err == nil && exec.CommandContext(ctx, python, "-m", "pip", "--version").Run() == nil {
		return []string{python, "-m", "pip"}, nil
	}
	for _, name := range []string{"pip3", "pip"} {
		if pip, err := exec.LookPath(name); err == nil {
			return []string{pip}, nil
		}
	}
	if err != nil {
		return nil, noTool(p, b, "neither python3 nor pip is in PATH: install Python 3 with pip (Debian: apt-get install python3-pip)")
	}
	return nil, noTool(p, b, python+" has no pip: install it (Debian: apt-get install python3-pip)")
}

func noTool(p Part, b Build, what string) error {
	return fmt.Errorf("%w: %s cannot be fetched, %s, or put %s into a folder and name that folder in CHATXRAY_PARTS_FROM", ErrTool, p.Name, what, b.File)
}

// What pip and npm say when they reach no registry, and when the disk is full.
var (
	offlineWords = []string{"NewConnectionError", "NameResolutionError", "name resolution", "Connection refused", "Network is unreachable", "Max retries exceeded", "ProxyError",
		"Cannot connect to proxy", "ConnectTimeout", "ReadTimeout", "ENOTFOUND", "EAI_AGAIN", "ECONNREFUSED", "ETIMEDOUT", "ENETUNREACH", "ECONNRESET", "EIDLETIMEOUT"}
	fullWords = []string{"No space left on device", "ENOSPC", "Disk quota exceeded", "EDQUOT"}
)

// toolError says in one sentence why a package manager failed.
func toolError(p Part, b Build, dir, said string) error {
	switch {
	case containsAny(said, fullWords):
		return fmt.Errorf("%w: %s needs %s in %s: free some space, or set CHATXRAY_PARTS to a folder on a larger disk, and run `chatxray parts fetch %s` again",
			ErrFull, p.Name, megabytes(room(b)), dir, p.Name)
	case containsAny(said, offlineWords):
		return fmt.Errorf("%w: %s %s cannot be fetched, %s reaches no package registry: connect to the network (or set the proxy that %s needs) and run `chatxray parts fetch %s` again, or put %s into a folder and name that folder in CHATXRAY_PARTS_FROM",
			ErrTool, p.Name, p.Version, p.Kind, p.Kind, p.Name, b.File)
	}
	return fmt.Errorf("%w: %s %s cannot be fetched, %s said %q: settle that and run `chatxray parts fetch %s` again, or put %s into a folder and name that folder in CHATXRAY_PARTS_FROM",
		ErrTool, p.Name, p.Version, p.Kind, lastError(said), p.Name, b.File)
}

func containsAny(s string, words []string) bool {
	for _, w := range words {
		if strings.Contains(s, w) {
			return true
		}
	}
	return false
}

// lastError picks the line that tells most: pip's last "ERROR:", npm's first "npm error", else the last line.
func lastError(said string) string {
	last := "nothing"
	for line := range strings.Lines(said) {
		line = strings.TrimSpace(line)
		switch {
		case line == "":
		case strings.HasPrefix(line, "npm error") || strings.HasPrefix(line, "npm ERR!"):
			if !strings.HasPrefix(last, "npm ") || strings.HasPrefix(last, "npm error code") {
				last = line
			}
		case !strings.HasPrefix(last, "npm ") && (strings.HasPrefix(line, "ERROR:") || !strings.HasPrefix(last, "ERROR:")):
			last = line
		}
	}
	if len(last) > 300 {
		last = strings.ToValidUTF8(last[:300], "") + " ..."
	}
	return last
}

// largestFile returns the size of the largest file under dir: a package that is on its way.
func largestFile(dir string) int64 {
	var most int64
	_ = filepath.WalkDir(dir, func(_ string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return nil // files come and go while the package manager works
		}
		if st, err := e.Info(); err == nil {
			most = max(most, st.Size())
		}
		return nil
	})
	return most
}

// tail keeps the last bytes written to it.
type tail struct {
	keep int
	buf  bytes.Buffer
}

func (t *tail) Write(b []byte) (int, error) {
	n := len(b)
	if n > t.keep {
		b = b[n-t.keep:]
	}
	if over := t.buf.Len() + len(b) - t.keep; over > 0 {
		t.buf.Next(over)
	}
	t.buf.Write(b)
	return n, nil
}

func (t *tail) String() string { return t.buf.String() }
