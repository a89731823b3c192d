// Package dicomweb is the HTTP face of the service: STOW-RS, QIDO-RS and WADO-RS (PS3.18 sections 10.4 to 10.6) at /dicom-web,
// health, readiness and metrics. It knows HTTP and the DICOM JSON model; what is stored and how files are parsed is handed in.
package dicomweb

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"runtime/debug"
	"strings"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"

	"chatxray/pipeline"
)

// Config is the section "dicomweb" of the configuration file.
type Config struct {
	BaseURL     string        `yaml:"base_url"` // what clients reach /dicom-web by, when no header says it: https://pacs.example/dicom-web
	Auth        Auth          `yaml:"auth"`
	Unguarded   bool          `yaml:"open"` // listen beyond loopback without authentication
	TLS         TLS           `yaml:"tls"`
	CORS        CORS          `yaml:"cors"`
	Limits      Limits        `yaml:"limits"`
	Proxies     []string      `yaml:"trusted_proxies"` // addresses and networks whose X-Forwarded-For names the client
	Delete      bool          `yaml:"delete"`          // DELETE of studies, series and instances, for the role admin
	Viewer      string        `yaml:"viewer"`          // folder of a web viewer to serve at /
	MaxBody     int64         `yaml:"max_body"`        // bytes of one request, after unpacking
	MaxInstance int64         `yaml:"max_instance"`    // bytes of one instance
	MaxParts    int           `yaml:"max_parts"`       // instances of one request
	MaxUploads  int           `yaml:"max_uploads"`     // requests that store at the same time
	MaxResults  int           `yaml:"max_results"`     // results of one search
	UnknownKeys string        `yaml:"unknown_keys"`    // what becomes of a search with a key that cannot be matched: refuse, warn
	Idle        time.Duration `yaml:"idle"`            // an upload or a download that stands still for this long is cut off
	Drain       time.Duration `yaml:"drain"`           // running requests may take this long to finish when the service stops
}

// Default returns what suits a radiology department's PACS.
func Default() Config {
	return Config{MaxBody: 8 << 30, MaxInstance: 1 << 30, MaxParts: 5000, MaxUploads: 1024, MaxResults: 1000,
		UnknownKeys: unknownRefuse, Idle: 60 * time.Second, Drain: 60 * time.Second, Auth: Auth{OIDC: OIDC{Claim: "roles", Skew: 30 * time.Second}}}
}

// Check returns what is wrong with the configuration.
func (c Config) Check() error {
	var errs []error
	if c.BaseURL != "" {
		if u, err := url.Parse(c.BaseURL); err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" || u.RawQuery != "" || u.Fragment != "" {
			errs = append(errs, errors.New("dicomweb.base_url: not an http(s) URL like https://pacs.example/dicom-web"))
		}
	}
	if c.UnknownKeys != unknownRefuse && c.UnknownKeys != unknownWarn {
		errs = append(errs, fmt.Errorf("dicomweb.unknown_keys: %q is neither refuse nor warn", c.UnknownKeys))
	}
	errs = append(errs, c.Auth.check(), c.TLS.check(len(c.Auth.Certificates) > 0), c.CORS.check(), c.Limits.check())
	for _, p := range c.Proxies {
		if _, err := netip.ParsePrefix(p); err != nil {
			if _, err := netip.ParseAddr(p); err != nil {
				errs = append(errs, fmt.Errorf("dicomweb.trusted_proxies: %q is neither an address nor a network like 10.0.0.0/8", printable(p)))
			}
		}
	}
	if c.Delete && c.Unguarded && !c.Auth.Any() {
		errs = append(errs, errors.New("dicomweb.delete: with dicomweb.open nobody would have the role admin; set dicomweb.auth"))
	}
	for _, n := range []struct {
		name       string
		value, min int64
	}{
		{"max_body", c.MaxBody, 1 << 20}, {"max_instance", c.MaxInstance, 1 << 20}, {"max_parts", int64(c.MaxParts), 1},
		{"max_uploads", int64(c.MaxUploads), 1}, {"max_results", int64(c.MaxResults), 1},
		{"idle", int64(c.Idle), int64(time.Second)}, {"drain", int64(c.Drain), 0},
	} {
		if n.value < n.min {
			errs = append(errs, fmt.Errorf("dicomweb.%s: too small", n.name))
		}
	}
	return errors.Join(errs...)
}

// CheckListen refuses an address that others than this machine can reach when nobody has to show who it is.
func (c Config) CheckListen(address string) error {
	if c.Auth.Any() || c.Unguarded {
		return nil
	}
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return fmt.Errorf("%w: the address to listen on is not HOST:PORT", pipeline.ErrInvalid)
	}
	if ip, err := netip.ParseAddr(host); host == "localhost" || err == nil && ip.IsLoopback() {
		return nil
	}
	return fmt.Errorf("%w: %s can be reached from other machines and nobody would have to authenticate; listen on 127.0.0.1, set dicomweb.auth, or set dicomweb.open: true when a proxy in front does it", pipeline.ErrInvalid, address)
}

// Receiver keeps what is uploaded. See pipeline.Staged and pipeline.Outcome.
type Receiver interface {
	// Room returns an error that wraps pipeline.ErrFull when there is no room for n more bytes.
	Room(n int64) error
	// Stage streams one DICOM file to a temporary place and checks it.
	Stage(ctx context.Context, r io.Reader) (*pipeline.Staged, error)
	// Discard drops what was staged.
	Discard(staged ...*pipeline.Staged)
	// Commit keeps what was staged, durably, and answers for each.
	Commit(ctx context.Context, staged []*pipeline.Staged) []pipeline.Outcome
}

// Finder finds what is kept.
type Finder interface {
	// Search returns a page of what matches.
	Search(ctx context.Context, q pipeline.Query) (pipeline.Found, error)
	// Count returns how many match, whatever the limit.
	Count(ctx context.Context, q pipeline.Query) (int, error)
	// Matchable tells whether a search at a level can match an attribute; in is the sequence whose items have it, or 0.
	Matchable(level pipeline.Level, in, tag pipeline.Tag) bool
	// Instances returns the instances of a study, a series ("" for all) or one instance ("" for all), with Path.
	Instances(ctx context.Context, study, series, sop string) ([]*pipeline.Instance, error)
}

// Store is where instances are kept.
type Store interface {
	Receiver
	Finder
}

// Deps is what main hands in.
type Deps struct {
	Lookup   func(keyword string) (tag pipeline.Tag, vr string, ok bool) // the data dictionary
	Keyword  func(tag pipeline.Tag) (keyword, vr string, ok bool)        // the same, by tag; nil where answers in XML need no keywords
	Checks   map[string]func(context.Context) error                      // what /readyz asks, by name
	Full     func(context.Context) error                                 // refuses uploads while it has an error (pipeline.ErrBusy: too much waits to be read); nil: never
	Work     Work                                                        // what is not done; nil where nothing is read
	Readings Readings                                                    // how far a study has come; nil where nothing is read
	Metrics  *prometheus.Registry                                        // nil makes one
	Guard    *Guard                                                      // tells who sends a request; nil where everybody may
	Deleter  Deleter                                                     // nil where nothing can be deleted
	Pages    fs.FS                                                       // the files of a web viewer; nil without one
	Routes   func(gin.RoutesInfo)                                        // gets the routes; nil where nobody asks
	Log      zerolog.Logger                                              // gets UIDs, never patient data
	Part     Part                                                        // of the service; the zero value is all of it
	Model    http.Handler                                                // of a face: answers what needs the model; nil where nobody does
	Version  string                                                      // of the program: another one may write and draw otherwise
	Imaging
	Talking
}

// Imaging is how files are taken apart and put together; main hands pipeline/dicom in.
type Imaging struct {
	Object     func(in *pipeline.Instance) (Object, error) // opens the file of an instance
	Transcodes func(from, to string) bool                  // whether one transfer syntax can be made of another
	AllowsVR   func(t pipeline.Tag, vr string) bool        // whether an attribute may have a VR
	// Assemble writes a file of a data set; pixels, when there are any, are one fragment for each frame, or native words.
	Assemble func(w io.Writer, ds pipeline.Dataset, syntaxUID string, pixels []io.Reader, lengths []int64) error
}

// Root is where the DICOMweb resources are.
const Root = "/dicom-web"

type server struct {
	Config
	Deps
	store   Store
	uploads chan struct{} // one for each running upload
	clients *clients
	metrics *metrics
	gate    *gate
	talking talking
}

// New makes the handler of the service. The configuration must have passed Check.
func New(cfg Config, store Store, deps Deps) http.Handler {
	if deps.Metrics == nil {
		deps.Metrics = prometheus.NewRegistry()
	}
	if deps.Guard == nil {
		if cfg.Auth.Any() {
			panic("dicomweb: a service with authentication needs its guard")
		}
		deps.Guard, _ = NewGuard(cfg, deps.Log) // opens nothing
	}
	if deps.Guard.issuer != nil {
		deps.Checks = maps.Clone(deps.Checks)
		if deps.Checks == nil {
			deps.Checks = map[string]func(context.Context) error{}
		}
		deps.Checks["oidc"] = func(ctx context.Context) error {
			if deps.Guard.Check(ctx) != nil { // the log has the cause, and /readyz is for everybody
				return errors.New("the issuer of tokens cannot be reached")
			}
			return nil
		}
	}
	s := &server{Config: cfg, Deps: deps, store: store, uploads: make(chan struct{}, cfg.MaxUploads), clients: newClients(cfg.Limits), gate: newGate(), talking: newTalking()}
	s.metrics = newMetrics(deps.Metrics, s)
	gin.SetMode(gin.ReleaseMode)
	e := gin.New()
	e.HandleMethodNotAllowed = true
	e.RedirectTrailingSlash = false
	_ = e.SetTrustedProxies(cfg.Proxies) // checked
	e.RemoteIPHeaders = []string{"X-Forwarded-For"}
	e.Use(s.access, s.recovered, s.streams, s.cors, s.unwanted, countsAreRead)
	e.NoRoute(s.viewer, func(c *gin.Context) {
		if ofOpenAI(c.Request) {
			s.refuse(c, fmt.Errorf("%w: there is no such resource; see docs/chat.md", pipeline.ErrNotFound))
			return
		}
		c.JSON(http.StatusNotFound, gin.H{"error": "there is no such resource" + elsewhere(c.Request.URL.Path)})
	})
	e.NoMethod(func(c *gin.Context) {
		if c.Request.Method == http.MethodOptions { // gin has set Allow
			c.Status(http.StatusNoContent)
			return
		}
		if ofOpenAI(c.Request) {
			c.JSON(http.StatusMethodNotAllowed, fault{kind: "invalid_request_error", code: "method_not_allowed", message: "this resource does not know the method"}.body())
			return
		}
		why := "this resource knows " + strings.ReplaceAll(c.Writer.Header().Get("Allow"), ", ", " and ") + " only"
		if c.Request.Method == http.MethodDelete && !cfg.Delete {
			why = "nothing is deleted here: dicomweb.delete is off"
		}
		c.JSON(http.StatusMethodNotAllowed, gin.H{"error": why})
	})
	s.register(e)
	if deps.Routes != nil {
		deps.Routes(e.Routes())
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if p := r.URL.Path; len(p) > 1 && strings.HasSuffix(p, "/") {
			r.URL.Path, r.URL.RawPath = strings.TrimRight(p, "/"), ""
		}
		e.ServeHTTP(w, r)
	})
}

// elsewhere says where resources are, to who asks at a wrong place.
func elsewhere(path string) string {
	if path == Root || strings.HasPrefix(path, Root+"/") {
		return "; OPTIONS " + Root + " lists those that there are"
	}
	return "; those of DICOMweb begin with " + Root
}

// recovered turns a panic into a 500 whose cause is in the log only.
func (s *server) recovered(c *gin.Context) {
	defer func() {
		switch p := recover(); p {
		case nil:
		case http.ErrAbortHandler:
			panic(p)
		default:
			s.Log.Error().Str("route", c.FullPath()).Bytes("stack", debug.Stack()).Msg("a request panicked")
			if c.Writer.Written() {
				panic(http.ErrAbortHandler) // half an answer must not look whole
			}
			c.AbortWithStatusJSON(http.StatusInternalServerError, gin.H{"error": "the service failed; its log says why"})
		}
	}()
	c.Next()
}
