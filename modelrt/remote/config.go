package remote

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"strings"
	"time"

	"chatxray/pipeline"
)

// Config is the object "remote" of a bundle's manifest, as docs/bundle.md describes it.
type Config struct {
	URL       string   `json:"url"`        // of the interface, https://host/v1: /models and /chat/completions are below it
	Model     string   `json:"model"`      // as /models lists it
	Key       string   `json:"key"`        // where the key is: env:NAME or file:PATH; empty for none
	AllowHTTP bool     `json:"allow_http"` // images and key may cross a network unencrypted
	Images    int      `json:"images"`     // that a conversation may have; 0 is a model of text
	Context   int      `json:"context"`    // tokens of prompt and answer; 0: not known
	Prompt    string   `json:"prompt"`     // what is said beside the image of a report; of a model of text, before a draft that it is to judge
	System    string   `json:"system"`     // the system's message before it; empty for none
	Evidence  string   `json:"evidence"`   // how log-probabilities of a text are had: EvidenceNone, EvidenceChatxray, EvidencePrompt
	Decoys    []string `json:"decoys"`     // files, other patients' images as PNG, for EvidencePrompt
	Timeouts  Timeouts `json:"timeouts"`
	Attempts  int      `json:"attempts"` // of a request of which nothing came back; 0 is 3
	Parallel  int      `json:"parallel"` // requests at the same time; 0 is 8
}

// Timeouts bound the stages of a request. Zero is the default.
type Timeouts struct {
	Connect Duration `json:"connect"` // until the connection stands, TLS included: 10s
	First   Duration `json:"first"`   // from there to the first piece of the answer: 2m
	Between Duration `json:"between"` // from one piece to the next: 30s
	Whole   Duration `json:"whole"`   // of the request with all its attempts: 10m
}

// Duration is written as "30s".
type Duration time.Duration

// UnmarshalText implements encoding.TextUnmarshaler.
func (d *Duration) UnmarshalText(b []byte) error {
	v, err := time.ParseDuration(string(b))
	if err != nil {
		return fmt.Errorf("%q is no duration with its unit, like 30s", b)
	}
	*d = Duration(v)
	return nil
}

// MarshalText implements encoding.TextMarshaler.
func (d Duration) MarshalText() ([]byte, error) { return []byte(time.Duration(d).String()), nil }

// The ways to the log-probabilities of a text.
const (
	EvidenceNone     = "none"            // the endpoint gives none
	EvidenceChatxray = "chatxray"        // it is another chatxray, which gives its own evidence with the answer
	EvidencePrompt   = "prompt_logprobs" // vLLM: those of the tokens of a prompt that ends with the text
)

const (
	mostImages   = 64
	mostContext  = 1 << 20
	mostAttempts = 10
	mostParallel = 256
	longest      = 24 * time.Hour
)

// Faults returns what is wrong with the object, each wrapping pipeline.ErrInvalid.
func (c *Config) Faults() (faults []error) {
	fault := func(key, format string, a ...any) {
		faults = append(faults, fmt.Errorf("%w remote.%s: %s", pipeline.ErrInvalid, key, fmt.Sprintf(format, a...)))
	}
	within := func(key string, n, most int) {
		if n < 0 || n > most {
			fault(key, "%d is not from 0 to %d", n, most)
		}
	}
	switch u, err := url.Parse(c.URL); {
	case err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.RawQuery != "" || u.Fragment != "":
		fault("url", "is no URL of an interface, like https://host/v1")
	case u.User != nil:
		fault("url", "holds a name or password; the key's place is remote.key, as env:NAME or file:PATH")
	case u.Scheme == "http" && !loopback(u.Hostname()) && !c.AllowHTTP:
		fault("url", "images would cross the network unencrypted; write https, or set remote.allow_http where the network is trusted")
	}
	if strings.TrimSpace(c.Model) == "" {
		fault("model", "is empty")
	}
	if where, what, ok := strings.Cut(c.Key, ":"); c.Key != "" && (!ok || where != "env" && where != "file" || what == "") {
		fault("key", "names no place; write env:NAME or file:PATH, never the key itself")
	}
	within("images", c.Images, mostImages)
	within("context", c.Context, mostContext)
	within("attempts", c.Attempts, mostAttempts)
	within("parallel", c.Parallel, mostParallel)
	if c.Images > 0 && strings.TrimSpace(c.Prompt) == "" {
		fault("prompt", "is empty: nothing would be asked beside the image")
	}
	switch c.Evidence {
	case EvidenceNone, EvidenceChatxray:
		if len(c.Decoys) > 0 {
			fault("decoys", "are for the evidence %s only", EvidencePrompt)
		}
	case EvidencePrompt:
		if len(c.Decoys) == 0 {
			fault("decoys", "are missing: evidence is a comparison with other patients' images")
		}
	default:
		fault("evidence", "%q is none of %s, %s, %s", c.Evidence, EvidenceNone, EvidenceChatxray, EvidencePrompt)
	}
	if c.Images == 0 && c.Evidence != EvidenceNone {
		fault("evidence", "is about images, and remote.images is 0")
	}
	for _, t := range []struct {
		key string
		d   Duration
	}{{"connect", c.Timeouts.Connect}, {"first", c.Timeouts.First}, {"between", c.Timeouts.Between}, {"whole", c.Timeouts.Whole}} {
		if t.d < 0 || time.Duration(t.d) > longest {
			fault("timeouts."+t.key, "%v is not from 0s to %v", time.Duration(t.d), longest)
		}
	}
	return faults
}

// withDefaults sets what zero stands for.
func (c Config) withDefaults() Config {
	set := func(d *Duration, v time.Duration) {
		if *d == 0 {
			*d = Duration(v)
		}
	}
	set(&c.Timeouts.Connect, 10*time.Second)
	set(&c.Timeouts.First, 2*time.Minute)
	set(&c.Timeouts.Between, 30*time.Second)
	set(&c.Timeouts.Whole, 10*time.Minute)
	if c.Attempts == 0 {
		c.Attempts = 3
	}
	if c.Parallel == 0 {
		c.Parallel = 8
	}
	return c
}

// Where is the place that images go to, for people.
func (c *Config) Where() string {
	u, err := url.Parse(c.URL)
	if err != nil {
		return ""
	}
	return u.Scheme + "://" + u.Host
}

func loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

const maxKey = 64 << 10

// key reads the key. A file is read each time, so that it may be changed.
func (c *Config) key() (string, error) {
	where, what, _ := strings.Cut(c.Key, ":")
	switch where {
	case "env":
		v, ok := os.LookupEnv(what)
		if !ok || v == "" {
			return "", fmt.Errorf("%w: the environment variable %s, which remote.key names, is not set", pipeline.ErrUnavailable, what)
		}
		return oneWord(v)
	case "file":
		b, err := os.ReadFile(what)
		if err != nil {
			return "", fmt.Errorf("%w: the file that remote.key names cannot be read: %w", pipeline.ErrUnavailable, errors.Unwrap(err))
		}
		return oneWord(string(b))
	}
	return "", nil
}

// oneWord refuses what cannot stand in a header, and does not show it.
func oneWord(key string) (string, error) {
	key = strings.TrimSpace(key)
	if key == "" || len(key) > maxKey || strings.ContainsFunc(key, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return "", fmt.Errorf("%w: what remote.key names holds no key: it must be one word of ASCII", pipeline.ErrUnavailable)
	}
	return key, nil
}
