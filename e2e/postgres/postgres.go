// Package postgres starts Debian's PostgreSQL for tests and benchmarks: a cluster of its own in a temporary folder, on a Unix socket and on no port, with the
// durability of production.
package postgres

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// ErrAbsent says why a test that needs PostgreSQL cannot run.
var ErrAbsent = errors.New("PostgreSQL is not installed: apt-get install postgresql")

// Server is a running cluster. Its methods are not safe for concurrent use.
type Server struct {
	dir, bin string
	as       *syscall.Credential // PostgreSQL refuses to run as root
}

// Start makes a cluster in a temporary folder and starts it. The error is ErrAbsent where nothing is installed.
func Start() (*Server, error) { return StartIn("") }

// StartIn is Start with a new folder in dir, which the user postgres must be able to enter.
func StartIn(dir string) (s *Server, err error) {
	s = &Server{}
	found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/postgres")
	if len(found) == 0 {
		return nil, ErrAbsent
	}
	slices.SortFunc(found, func(x, y string) int { return version(x) - version(y) })
	s.bin = filepath.Dir(found[len(found)-1])
	if s.dir, err = os.MkdirTemp(dir, "postgres-"); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			_ = os.RemoveAll(s.dir)
		}
	}()
	if os.Getuid() == 0 {
		u, err := user.Lookup("postgres")
		if err != nil {
			return nil, fmt.Errorf("root needs the user postgres of Debian's package: %w", err)
		}
		uid, _ := strconv.Atoi(u.Uid)
		gid, _ := strconv.Atoi(u.Gid)
		s.as = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
		if err := os.Chown(s.dir, uid, gid); err != nil {
			return nil, err
		}
	}
	if err := s.run("initdb", "-D", s.data(), "-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-locale"); err != nil {
		return nil, err
	}
	return s, s.Up()
}

func version(path string) int {
	n, _ := strconv.Atoi(filepath.Base(filepath.Dir(filepath.Dir(path))))
	return n
}

func (s *Server) data() string { return filepath.Join(s.dir, "data") }

func (s *Server) run(program string, args ...string) error {
	cmd := exec.Command(filepath.Join(s.bin, program), args...)
	cmd.Dir = s.dir
	cmd.Env = []string{"PATH=/usr/bin:/bin", "LC_ALL=C.UTF-8", "HOME=" + s.dir}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: s.as}
	out, err := os.CreateTemp("", "postgres-out-") // a pipe would stay open in the server that pg_ctl starts
	if err != nil {
		return err
	}
	defer os.Remove(out.Name())
	defer out.Close()
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Run(); err != nil {
		said, _ := os.ReadFile(out.Name())
		return fmt.Errorf("%s: %w: %s", program, err, strings.TrimSpace(string(said)))
	}
	return nil
}

// Up starts the server and returns when it takes connections.
func (s *Server) Up() error {
	return s.run("pg_ctl", "-D", s.data(), "-l", filepath.Join(s.dir, "log"), "-w", "-t", "120", "-o", "-c listen_addresses='' -c unix_socket_directories='"+s.dir+"'", "start")
}

// Down ends the server: immediate is as a crash of it, fast lets it write what it has.
func (s *Server) Down(mode string) error {
	return s.run("pg_ctl", "-D", s.data(), "-m", mode, "-w", "-t", "120", "stop")
}

// PID is the process that all others of the server are children of.
func (s *Server) PID() (int, error) {
	b, err := os.ReadFile(filepath.Join(s.data(), "postmaster.pid"))
	if err != nil {
		return 0, err
	}
	first, _, _ := strings.Cut(string(b), "\n")
	return strconv.Atoi(first)
}

// Create makes a database and returns its URL.
func (s *Server) Create(name string) (url string, err error) {
	return s.URL(name), s.run("createdb", "-h", s.dir, "-U", "postgres", "-T", "template0", "-E", "UTF8", name)
}

// URL is that of a database.
func (s *Server) URL(name string) string {
	return "postgres://postgres:only-for-tests@/" + name + "?host=" + s.dir
}

// Query runs SQL in a database.
func (s *Server) Query(database, text string) error {
	return s.run("psql", "-h", s.dir, "-U", "postgres", "-v", "ON_ERROR_STOP=1", "-d", database, "-c", text)
}

// Close ends the server and removes the cluster.
func (s *Server) Close() error {
	err := s.Down("immediate")
	return errors.Join(err, os.RemoveAll(s.dir))
}
