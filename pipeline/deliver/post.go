package deliver

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
	"unicode"

	"chatxray/pipeline"
)

// maxAnswer is how much is read of an answer; what comes behind it is not needed to judge it.
const maxAnswer = 4 << 20

// peer is the other side of HTTP.
type peer struct {
	Config
	client http.Client
}

func newPeer(c Config) (*peer, error) {
	u, err := url.Parse(c.URL)
	if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" {
		return nil, errors.New("url: not an http(s) URL, like http://orthanc:8042/dicom-web")
	}
	if c.Token != "" && c.User != "" {
		return nil, errors.New("token and user exclude each other")
	}
	// A redirected POST would become a GET, whose 200 says nothing about storing.
	return &peer{Config: c, client: http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}}, nil
}

// answer is what the other side said.
type answer struct {
	status int
	body   []byte // its first maxAnswer bytes
}

// ask sends a request; ctx bounds it. The error wraps pipeline.ErrUnavailable where there was no whole answer, or one that says nothing about what was sent.
func (p *peer) ask(ctx context.Context, method, to string, body []byte, header map[string]string) (answer, error) {
	req, err := http.NewRequestWithContext(ctx, method, to, bytes.NewReader(body))
	if err != nil {
		return answer{}, fmt.Errorf("destination %s: %w", p.Name, Permanent) // the URL was checked
	}
	for k, v := range header {
		req.Header.Set(k, v)
	}
	switch {
	case p.Token != "":
		req.Header.Set("Authorization", "Bearer "+p.Token.Reveal())
	case p.User != "":
		req.SetBasicAuth(p.User, p.Password.Reveal())
	}
	resp, err := p.client.Do(req)
	if err != nil {
		return answer{}, fmt.Errorf("destination %s does not answer: %w: %w", p.Name, p.why(ctx, err), pipeline.ErrUnavailable)
	}
	defer resp.Body.Close()
	a := answer{status: resp.StatusCode}
	if a.body, err = io.ReadAll(io.LimitReader(resp.Body, maxAnswer)); err != nil {
		return a, fmt.Errorf("destination %s broke off its answer: %w: %w", p.Name, p.why(ctx, err), pipeline.ErrUnavailable)
	}
	if resp.StatusCode/100 == 3 {
		return a, fmt.Errorf("destination %s redirects to %s: put that address into the configuration: %w", p.Name, bare(resp.Header.Get("Location")), pipeline.ErrUnavailable)
	}
	return a, nil
}

// why is a failure of HTTP without the URL, which may hold what nobody else should know.
func (p *peer) why(ctx context.Context, err error) error {
	var u *url.Error
	if errors.As(err, &u) {
		err = u.Err
	}
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return fmt.Errorf("no whole answer within %v", p.Timeout)
	}
	return err
}

// bare is an address without what may be secret in it.
func bare(location string) string {
	u, err := url.Parse(location)
	if err != nil {
		return "what is no URL"
	}
	return fmt.Sprintf("%.200s", (&url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path}).String())
}

// fixable are statuses that an operator or time can change: busy, a token that has ended, a service that is being set up. They are about the destination, not
// about what was sent.
var fixable = []int{401, 403, 404, 405, 407, 408, 425, 429, 502, 503, 504}

// errNowhere is the pipeline.ErrUnavailable of an URL that leads nowhere. Where it leads somewhere for others meanwhile, it is about what was sent (misses).
var errNowhere = fmt.Errorf("%w", pipeline.ErrUnavailable)

// refused is the error of an answer that is neither a success nor one of those that the caller understands.
func (p *peer) refused(a answer) error {
	err := fmt.Errorf("destination %s answers %d", p.Name, a.status)
	switch {
	case a.status == http.StatusNotFound, a.status == http.StatusMethodNotAllowed:
		err = fmt.Errorf("%w: %w", err, errNowhere)
	case slices.Contains(fixable, a.status):
		err = fmt.Errorf("%w: %w", err, pipeline.ErrUnavailable)
	case a.status >= 500:
	default:
		err = fmt.Errorf("%w: %w", err, Permanent)
	}
	return p.quoting(err, a)
}

// quoted is an error together with how the other side worded it.
type quoted struct {
	error
	words string
}

// Unwrap returns the error.
func (q *quoted) Unwrap() error { return q.error }

// Answer returns the words.
func (q *quoted) Answer() string { return q.words }

// maxWords is how many characters are kept of how the other side words a refusal.
const maxWords = 500

// quoting puts the words of an answer beside an error: printable ones, shortened.
func (p *peer) quoting(err error, a answer) error {
	words := []rune(strings.Join(strings.FieldsFunc(strings.ToValidUTF8(string(a.body[:min(len(a.body), 8*maxWords)]), "\uFFFD"),
		func(r rune) bool { return unicode.IsSpace(r) || !unicode.IsPrint(r) }), " "))
	if len(words) == 0 {
		return err
	}
	if len(words) > maxWords {
		words = append(words[:maxWords], '…')
	}
	return &quoted{err, string(words)}
}

// limited is the context of an attempt.
func (c Config) limited(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, c.Timeout)
}

// pause waits; the error is that of ctx.
func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}
