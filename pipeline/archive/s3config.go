package archive

import (
	"crypto/x509"
	"errors"
	"fmt"
	"net/url"
	"os"
	"regexp"
	"strings"

	"chatxray/pipeline"
)

// S3 is how the object store that archive.objects names is reached.
type S3 struct {
	// Endpoint is its URL, https://HOST[:PORT] or http://HOST[:PORT]; empty is that of AWS in the region.
	Endpoint string `yaml:"endpoint"`
	Region   string `yaml:"region"`
	// AccessKey and SecretKey sign the requests. Both empty: the environment (AWS_ACCESS_KEY_ID ...), or the role of the machine or the pod.
	AccessKey string          `yaml:"access_key"`
	SecretKey pipeline.Secret `yaml:"secret_key"`
	// PathStyle puts the bucket into the path, HOST/BUCKET, as most stores other than AWS want it; else it is a name, BUCKET.HOST.
	PathStyle bool `yaml:"path_style"`
	// CA is a file of certificates, PEM, that are trusted beside those of the system.
	CA string `yaml:"ca"`
	// TimeoutSeconds is how long S3 may be silent. A transfer has a second a megabyte more.
	TimeoutSeconds int `yaml:"timeout_seconds"`
}

// address is what archive.objects and archive.s3 say.
type address struct {
	endpoint, bucket, prefix string
	secure                   bool
	roots                    *x509.CertPool // nil: the system's
}

var (
	bucketName = regexp.MustCompile(`^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$`)
	keyPrefix  = regexp.MustCompile(`^[A-Za-z0-9_.-]+(/[A-Za-z0-9_.-]+)*$`)
)

func (c S3) parse(objects string) (at address, err error) {
	rest, ok := strings.CutPrefix(objects, "s3://")
	bucket, prefix, _ := strings.Cut(rest, "/")
	prefix = strings.TrimSuffix(prefix, "/")
	switch {
	case !ok:
		return at, fmt.Errorf("archive.objects: %q is no URL of S3, as s3://BUCKET or s3://BUCKET/PREFIX", objects)
	case !bucketName.MatchString(bucket):
		return at, fmt.Errorf("archive.objects: %q is no name of a bucket", bucket)
	case prefix != "" && (!keyPrefix.MatchString(prefix) || strings.Contains("/"+prefix+"/", "/../") || strings.Contains("/"+prefix+"/", "/./")):
		return at, fmt.Errorf("archive.objects: %q is no prefix; it has letters, digits, '-', '_', '.' and single slashes", prefix)
	}
	at.bucket = bucket
	if prefix != "" {
		at.prefix = prefix + "/"
	}
	endpoint := c.Endpoint
	if endpoint == "" {
		endpoint = "https://s3." + c.Region + ".amazonaws.com"
	}
	u, err := url.Parse(endpoint)
	if err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" || u.User != nil || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" {
		return at, errors.New("archive.s3.endpoint: it is no https://HOST[:PORT] or http://HOST[:PORT]")
	}
	at.endpoint, at.secure = u.Host, u.Scheme == "https"
	if c.CA != "" {
		pem, err := os.ReadFile(c.CA)
		if err != nil {
			return at, fmt.Errorf("archive.s3.ca: %w", err)
		}
		if at.roots, err = x509.SystemCertPool(); err != nil {
			at.roots = x509.NewCertPool()
		}
		if !at.roots.AppendCertsFromPEM(pem) {
			return at, fmt.Errorf("archive.s3.ca: %s has no certificate in PEM", c.CA)
		}
	}
	return at, nil
}

// check returns what is wrong.
func (c S3) check(objects string) error {
	var errs []error
	if objects != "" {
		_, err := c.parse(objects)
		errs = append(errs, err)
	}
	if (c.AccessKey == "") != (c.SecretKey == "") {
		errs = append(errs, errors.New("archive.s3: access_key and secret_key go together"))
	}
	if c.Region == "" {
		errs = append(errs, errors.New("archive.s3.region: empty"))
	}
	if c.TimeoutSeconds < 1 || c.TimeoutSeconds > 600 {
		errs = append(errs, errors.New("archive.s3.timeout_seconds: outside 1 to 600"))
	}
	return errors.Join(errs...)
}
