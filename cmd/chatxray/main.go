// Command chatxray reads chest radiographs with a vision-language model and gives the drafted reports back as DICOM Structured Reports.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"sync"
	"syscall"
	_ "time/tzdata" // a container may have no zone data base

	"github.com/alecthomas/kong"
	"github.com/rs/zerolog"
	"golang.org/x/term"

	"chatxray/parts"
	"chatxray/pipeline"
)

// version is set by the Makefile (-ldflags "-X main.version=...").
var version = ""

// softwareVersion is asked for with every study.
var softwareVersion = sync.OnceValue(func() string {
	if version != "" {
		return version
	}
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" && info.Main.Version != "(devel)" {
		return info.Main.Version
	}
	return "0.1.0-dev"
})

type cli struct {
	Serve      serveCmd      `cmd:"" help:"Run the service: studies come in over STOW-RS, drafted reports go out as DICOM SR."`
	Report     reportCmd     `cmd:"" help:"Read DICOM files without a server and print the drafted reports."`
	Ask        askCmd        `cmd:"" help:"Ask about the radiograph of a study."`
	Send       sendCmd       `cmd:"" help:"Send DICOM files to a DICOMweb server (STOW-RS)."`
	Show       showCmd       `cmd:"" help:"Wait for the report of a study that a running service has, and show it."`
	Release    releaseCmd    `cmd:"" help:"Let a report go that a running service holds for review."`
	Studies    studiesCmd    `cmd:"" help:"Where the studies of a running service stand, and what happened to each."`
	Jobs       jobsCmd       `cmd:"" help:"See and change what a running service has still to do."`
	Deliveries deliveriesCmd `cmd:"" help:"Documents on their way to destinations: list, show, retry, drop."`
	Preprocess preprocessCmd `cmd:"" help:"Write exactly the pixels that the model sees, as PNG and .npy."`
	Phantom    phantomCmd    `cmd:"" help:"Draw a synthetic chest radiograph with planted findings, as a DICOM object."`
	Label      labelCmd      `cmd:"" help:"Label report texts with the fourteen findings of the closed list."`
	Weigh      weighCmd      `cmd:"" help:"Give the sentences of any text about an image the evidence that they would have."`
	Bundles    bundlesCmd    `cmd:"" help:"List and verify model bundles, show their model cards."`
	Parts      partsCmd      `cmd:"" help:"List and fetch the pinned run-time parts (ONNX Runtime, codecs, base model)."`
	Archive    archiveCmd    `cmd:"" help:"Check an archive, rebuild its index from its files."`
	Check      checkCmd      `cmd:"" help:"Check a configuration file."`
	Doctor     doctorCmd     `cmd:"" help:"Tell whether everything that the service needs is here, and what to do if not."`
	Version    versionCmd    `cmd:"" help:"Print the version."`

	LogLevel string `enum:"trace,debug,info,warn,error" default:"info" env:"CHATXRAY_LOG_LEVEL" help:"What to log on standard error: ${enum}."`
	LogJSON  bool   `env:"CHATXRAY_LOG_JSON" help:"Log as JSON lines even on a terminal."`

	VersionFlag kong.VersionFlag `name:"version" hidden:"" help:"Print the version."`
}

const description = `Reads chest radiographs with a vision-language model. Every result is a draft by software and needs a radiologist.

Exit codes: 0 done; 1 something else failed; 2 wrong usage; 3 invalid input; 4 nothing in the input is a readable chest radiograph;
5 a run-time part or model bundle is missing or damaged; 6 the configuration is wrong; 7 a server did not take or give what was asked; 130 interrupted.`

// The exit codes, as described above.
const (
	exitFailed  = 1
	exitUsage   = 2
	exitInvalid = 3
	exitNothing = 4
	exitParts   = 5
	exitConfig  = 6
	exitServer  = 7
)

var (
	errConfig = errors.New("configuration")
	errServer = errors.New("server")
	errUsage  = errors.New("usage")
)

func exitCode(err error) int {
	switch {
	case err == nil:
		return 0
	case errors.Is(err, context.Canceled):
		return 130
	case errors.Is(err, errUsage):
		return exitUsage
	case errors.Is(err, errConfig):
		return exitConfig
	case errors.Is(err, errServer), errors.Is(err, pipeline.ErrUnavailable):
		return exitServer
	case errors.Is(err, pipeline.ErrMissingPart), errors.Is(err, errBundle), ofParts(err):
		return exitParts
	case errors.Is(err, pipeline.ErrNotImage):
		return exitNothing
	case errors.Is(err, pipeline.ErrInvalid), errors.Is(err, pipeline.ErrUnsupported), errors.Is(err, pipeline.ErrUnknown):
		return exitInvalid
	}
	return exitFailed
}

func ofParts(err error) bool {
	for _, e := range []error{parts.ErrMissing, parts.ErrUnknown, parts.ErrPlatform, parts.ErrDamaged, parts.ErrTool, parts.ErrFull, parts.ErrCache} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// streams is what a command talks through.
type streams struct {
	in       io.Reader
	out, err io.Writer
	log      zerolog.Logger
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// color tells whether standard output is a terminal that wants colours.
func (s streams) color() bool {
	return isTerminal(s.out) && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"
}

// run is main without the process: tests call it. It returns the exit code.
func run(ctx context.Context, args []string, in io.Reader, out, errw io.Writer) int {
	var c cli
	exited := -1
	k, err := kong.New(&c, kong.Name("chatxray"), kong.Description(description), kong.Vars{"syntaxes": phantomSyntaxNames(), "version": versionLine()}, kong.Writers(out, errw), kong.UsageOnError(),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true, WrapUpperBound: 120}), kong.Exit(func(code int) { exited = code; panic(exitNow{}) }))
	if err != nil {
		fmt.Fprintln(errw, "chatxray:", err)
		return exitFailed
	}
	var kctx *kong.Context
	if stopped := catchExit(func() { kctx, err = k.Parse(args) }); stopped {
		return exited // --help
	}
	if err != nil {
		fmt.Fprintln(errw, "chatxray:", err)
		var p *kong.ParseError
		if errors.As(err, &p) && p.Context != nil {
			what := "chatxray"
			if n := p.Context.Selected(); n != nil {
				what = n.FullPath()
			}
			fmt.Fprintf(errw, "Run %q for what it takes.\n", what+" --help")
		}
		return exitUsage
	}
	s := streams{in: in, out: out, err: errw, log: logger(errw, c.LogLevel, c.LogJSON)}
	kctx.BindTo(ctx, (*context.Context)(nil))
	kctx.Bind(s)
	if err := kctx.Run(); err != nil {
		if !errors.Is(err, errQuiet) {
			fmt.Fprintln(errw, "chatxray:", err)
		}
		return exitCode(err)
	}
	return 0
}

// errQuiet marks an error that has been told already.
var errQuiet = errors.New("told already")

type exitNow struct{}

func catchExit(f func()) (stopped bool) {
	defer func() {
		if r := recover(); r != nil {
			if _, ok := r.(exitNow); !ok {
				panic(r)
			}
			stopped = true
		}
	}()
	f()
	return false
}

func logger(w io.Writer, level string, asJSON bool) zerolog.Logger {
	l, err := zerolog.ParseLevel(level)
	if err != nil {
		l = zerolog.InfoLevel
	}
	if isTerminal(w) && !asJSON {
		w = zerolog.ConsoleWriter{Out: w, TimeFormat: "15:04:05"}
	}
	return zerolog.New(w).Level(l).With().Timestamp().Logger()
}

type versionCmd struct{}

// Run prints the version.
func (versionCmd) Run(s streams) error {
	fmt.Fprintln(s.out, versionLine())
	return nil
}

func versionLine() string {
	return fmt.Sprintf("chatxray %s %s/%s %s", softwareVersion(), runtime.GOOS, runtime.GOARCH, runtime.Version())
}
