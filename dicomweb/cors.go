package dicomweb

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"

	"github.com/gin-gonic/gin"
)

// CORS is the section "dicomweb.cors" of the configuration file: which web pages may use the service from a browser.
type CORS struct {
	Origins []string `yaml:"origins"` // https://viewer.example; they may send credentials
}

func (o CORS) check() error {
	for i, s := range o.Origins {
		u, err := url.Parse(s)
		if err != nil || (u.Scheme != "https" && u.Scheme != "http") || u.Host == "" || u.Scheme+"://"+u.Host != s {
			return fmt.Errorf("dicomweb.cors.origins: number %d is no origin like https://viewer.example, without a path", i+1)
		}
	}
	return nil
}

const (
	corsMethods = "GET, HEAD, POST, DELETE, OPTIONS"
	corsHeaders = "Accept, Accept-Language, Authorization, Content-Encoding, Content-Type, If-Match, If-Modified-Since, If-None-Match, If-Range, Range, X-Requested-With"
	corsExposed = "Accept-Ranges, Content-Disposition, Content-Length, Content-Location, Content-Range, ETag, Last-Modified, Location, Retry-After, Warning, WWW-Authenticate"
)

var errOrigin = errors.New("this origin may not use the service; dicomweb.cors.origins lists those that may")

// cors answers for other origins (Fetch standard, section 3.2). Preflight requests end here, before anybody has to show who it is: a browser sends
// them without credentials.
func (s *server) cors(c *gin.Context) {
	h := c.Writer.Header()
	h.Set("X-Content-Type-Options", "nosniff")
	if len(s.CORS.Origins) == 0 {
		return
	}
	h.Add("Vary", "Origin")
	origin := c.GetHeader("Origin")
	allowed := slices.Contains(s.CORS.Origins, origin)
	if allowed {
		h.Set("Access-Control-Allow-Origin", origin)
		h.Set("Access-Control-Allow-Credentials", "true")
		h.Set("Access-Control-Expose-Headers", corsExposed)
	}
	if c.Request.Method != http.MethodOptions || origin == "" || c.GetHeader("Access-Control-Request-Method") == "" {
		return
	}
	h.Add("Vary", "Access-Control-Request-Method, Access-Control-Request-Headers, Access-Control-Request-Private-Network")
	if !allowed {
		c.AbortWithStatusJSON(http.StatusForbidden, gin.H{"error": errOrigin.Error()})
		return
	}
	h.Set("Access-Control-Allow-Methods", corsMethods)
	h.Set("Access-Control-Allow-Headers", corsHeaders)
	h.Set("Access-Control-Max-Age", "600")
	if c.GetHeader("Access-Control-Request-Private-Network") == "true" {
		h.Set("Access-Control-Allow-Private-Network", "true")
	}
	c.AbortWithStatus(http.StatusNoContent)
}
