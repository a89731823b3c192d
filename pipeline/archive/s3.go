package archive

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"
	"golang.org/x/sync/errgroup"

	"chatxray/pipeline"
)

// bucket keeps files as objects of S3, and what is read of them in a cache on this machine. An object is put in one request, so that there
// is all of it or nothing, and signed with its sha256, which S3 compares before it answers.
type bucket struct {
	client  minio.Core
	name    string
	prefix  string // empty, or with a slash at its end
	timeout time.Duration
	cache   *cache
	close   func() // of idle connections
}

// slowest is what a transfer has to manage beyond the time-out, in bytes a second.
const slowest = 1 << 20

// newBucket connects to nothing yet.
func newBucket(c S3, objects string, files *cache) (*bucket, error) {
	at, err := c.parse(objects)
	if err != nil {
		return nil, err
	}
	transport, err := minio.DefaultTransport(at.secure)
	if err != nil {
		return nil, err
	}
	transport.DialContext = (&net.Dialer{Timeout: 5 * time.Second, KeepAlive: 15 * time.Second}).DialContext
	transport.MaxIdleConnsPerHost = 64
	if at.roots != nil {
		transport.TLSClientConfig.RootCAs = at.roots
	}
	lookup := minio.BucketLookupDNS
	if c.PathStyle {
		lookup = minio.BucketLookupPath
	}
	keys := credentials.NewStaticV4(c.AccessKey, c.SecretKey.Reveal(), "")
	if c.AccessKey == "" { // as AWS's own tools find them
		keys = credentials.NewChainCredentials([]credentials.Provider{&credentials.EnvAWS{}, &credentials.IAM{Client: &http.Client{Transport: transport, Timeout: 5 * time.Second}}})
	}
	client, err := minio.NewCore(at.endpoint, &minio.Options{Creds: keys, Secure: at.secure, Region: c.Region, BucketLookup: lookup, Transport: transport, MaxRetries: 3})
	if err != nil {
		return nil, fmt.Errorf("%w: archive.s3: %w", pipeline.ErrInvalid, err)
	}
	return &bucket{client: *client, name: at.bucket, prefix: at.prefix, timeout: time.Duration(c.TimeoutSeconds) * time.Second, cache: files, close: transport.CloseIdleConnections}, nil
}

// ping asks for what is needed at least.
func (b *bucket) ping(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, b.timeout)
	defer cancel()
	for o := range b.client.ListObjectsIter(ctx, b.name, minio.ListObjectsOptions{Prefix: b.prefix, MaxKeys: 1}) { // a HEAD would not say why
		err := b.error(o.Err)
		if errors.Is(err, fs.ErrNotExist) { // a list is never missing
			err = refusal{fmt.Errorf("%w: the bucket %s of S3 cannot be used: there is no such bucket, or S3 does not know the access key (%s)",
				pipeline.ErrUnavailable, b.name, minio.ToErrorResponse(o.Err).Code)}
		}
		return err
	}
	return b.error(ctx.Err())
}

func (b *bucket) copy(ctx context.Context, name string, content []byte) error {
	return b.write(ctx, name, content)
}

func (b *bucket) write(ctx context.Context, name string, content []byte) error {
	return b.put(ctx, name, bytes.NewReader(content), int64(len(content)), sha256.Sum256(content))
}

func (b *bucket) put(ctx context.Context, name string, r io.ReadSeeker, size int64, sum pipeline.Digest) error {
	ctx, cancel := context.WithTimeout(ctx, b.timeout+time.Duration(size)*time.Second/slowest)
	defer cancel()
	_, err := b.client.PutObject(ctx, b.name, b.prefix+name, r, size, "", sum.String(),
		minio.PutObjectOptions{ContentType: "application/octet-stream", DisableContentSha256: true}) // its sum is known, and signed
	return b.error(err)
}

func (b *bucket) read(ctx context.Context, name string) (io.ReadCloser, error) {
	w := b.watch(ctx)
	r, _, _, err := b.client.GetObject(w.ctx, b.name, b.prefix+name, minio.GetObjectOptions{})
	if err != nil {
		w.end()
		return nil, b.error(err)
	}
	return &reading{b, w, r}, nil
}

// has tells whether an object is there.
func (b *bucket) has(ctx context.Context, name string) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, b.timeout)
	defer cancel()
	_, err := b.client.StatObject(ctx, b.name, b.prefix+name, minio.StatObjectOptions{})
	if err = b.error(err); errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

func (b *bucket) list(ctx context.Context, folder string, f func(keptFile) error) error {
	w := b.watch(ctx)
	defer w.end()
	for o := range b.client.ListObjectsIter(w.ctx, b.name, minio.ListObjectsOptions{Prefix: b.prefix + folder + "/", Recursive: true}) {
		w.goesOn()
		if o.Err != nil {
			return b.error(o.Err)
		}
		if strings.HasSuffix(o.Key, "/") { // a folder of somebody's tool
			continue
		}
		if err := f(keptFile{strings.TrimPrefix(o.Key, b.prefix), o.Size, o.LastModified}); err != nil {
			return err
		}
	}
	return b.error(w.ctx.Err())
}

func (b *bucket) remove(ctx context.Context, names ...string) error {
	var work errgroup.Group
	work.SetLimit(8)
	for _, name := range names {
		work.Go(func() error {
			b.cache.drop(b.path(name))
			ctx, cancel := context.WithTimeout(ctx, b.timeout)
			defer cancel()
			err := b.error(b.client.RemoveObject(ctx, b.name, b.prefix+name, minio.RemoveObjectOptions{}))
			if errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			return err
		})
	}
	return work.Wait()
}

func (b *bucket) secure(ctx context.Context, local, name string, sum pipeline.Digest) error {
	f, err := os.Open(local)
	if err != nil {
		return bare(err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return bare(err)
	}
	return b.put(ctx, name, f, info.Size(), sum)
}

func (b *bucket) path(name string) string { return b.cache.path(name) }

// fetch brings an object into the cache. The error wraps pipeline.ErrInvalid when it has other bytes than the index says.
func (b *bucket) fetch(ctx context.Context, name string, sum pipeline.Digest) error {
	ctx = context.WithoutCancel(ctx) // others may wait for the same; a stream that stands still ends
	return b.cache.get(name, func(w io.Writer) error {
		r, err := b.read(ctx, name)
		if err != nil {
			return err
		}
		defer r.Close()
		h := sha256.New()
		if _, err := io.Copy(io.MultiWriter(w, h), r); err != nil {
			return err
		}
		if [sha256.Size]byte(h.Sum(nil)) != sum {
			return fmt.Errorf("%w: the object %s of S3 has changed since it was stored", pipeline.ErrInvalid, name)
		}
		return nil
	})
}

// watched is a request that ends when nothing comes of it for too long.
type watched struct {
	ctx     context.Context
	end     context.CancelFunc
	timer   *time.Timer
	timeout time.Duration
}

func (b *bucket) watch(ctx context.Context) *watched {
	ctx, cancel := context.WithCancelCause(ctx)
	w := &watched{ctx: ctx, timeout: b.timeout}
	w.timer = time.AfterFunc(b.timeout, func() { cancel(context.DeadlineExceeded) })
	w.end = func() {
		w.timer.Stop()
		cancel(nil)
	}
	return w
}

func (w *watched) goesOn() { w.timer.Reset(w.timeout) }

type reading struct {
	b *bucket
	w *watched
	io.ReadCloser
}

func (r *reading) Read(p []byte) (int, error) {
	n, err := r.ReadCloser.Read(p)
	r.w.goesOn()
	if err != nil && err != io.EOF {
		err = r.b.error(err)
	}
	return n, err
}

func (r *reading) Close() error {
	defer r.w.end()
	return r.ReadCloser.Close()
}

// settled are answers of S3 that another try does not change.
var settled = map[string]string{
	"NoSuchBucket":                 "there is no such bucket",
	"AccessDenied":                 "it refuses these keys what is needed (s3:GetObject, PutObject, DeleteObject, ListBucket)",
	"InvalidAccessKeyId":           "it does not know the access key",
	"SignatureDoesNotMatch":        "the secret key is not that of the access key, or a proxy changes the requests",
	"PermanentRedirect":            "the bucket is in another region",
	"AuthorizationHeaderMalformed": "the bucket is in another region",
}

// refusal is an error that another try does not change.
type refusal struct{ error }

func (r refusal) Unwrap() error { return r.error }

// error says what an error of S3 means to the archive, without an address: it may be told to who uploads.
func (b *bucket) error(err error) error {
	if err == nil {
		return nil
	}
	var answer minio.ErrorResponse
	var network net.Error
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, pipeline.ErrUnavailable):
		return err
	case errors.As(err, &answer) && settled[answer.Code] != "":
		return refusal{fmt.Errorf("%w: the bucket %s of S3 cannot be used: %s (%s)", pipeline.ErrUnavailable, b.name, settled[answer.Code], answer.Code)}
	case errors.As(err, &answer) && answer.StatusCode == http.StatusNotFound:
		return fmt.Errorf("%w in S3", fs.ErrNotExist)
	case errors.As(err, &answer):
		return fmt.Errorf("%w: S3 answers %d %s", pipeline.ErrUnavailable, answer.StatusCode, answer.Code)
	case errors.Is(err, context.Canceled) && !errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("%w: a request to S3 was broken off", pipeline.ErrUnavailable)
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &network) && network.Timeout():
		return fmt.Errorf("%w: S3 does not answer in time", pipeline.ErrUnavailable)
	}
	return fmt.Errorf("%w: S3 cannot be reached, or breaks off", pipeline.ErrUnavailable)
}
