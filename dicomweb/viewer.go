package dicomweb

import (
	"encoding/json"
	"io/fs"
	"net/http"
	"path"
	"regexp"
	"strings"

	"github.com/gin-gonic/gin"
)

// viewerConfig is app-config.js of OHIF: one data source, which is this service.
const viewerConfig = `// Written by chatxray serve --viewer.
(() => {
const root = BASE || window.location.origin + ROOT;

// OHIF draws the coordinates of a TID 1500 report and shows an empty page where there are none, as in a report of findings without
// places. Such a report is handed to OHIF's view of text instead, which cannot take items without a name (the images).
const list = sequence => Array.from(sequence?.[Symbol.iterator] ? sequence : sequence ? [sequence] : []);
const located = item => /^SCOORD/.test(item.ValueType) || list(item.ContentSequence).some(located);
const named = item => list(item.ConceptNameCodeSequence).length > 0 && item.ValueType !== 'IMAGE';
const readable = item => Object.create(item, {
  ContentSequence: { value: list(item.ContentSequence).filter(named).map(readable), enumerable: true },
});
const reportsAsText = {
  id: 'chatxray-reports-as-text',
  preRegistration({ servicesManager }) {
    const { displaySetService } = servicesManager.services;
    displaySetService.subscribe(displaySetService.EVENTS.DISPLAY_SETS_ADDED, ({ displaySetsAdded }) => {
      for (const set of displaySetsAdded) {
        if (set.isImagingMeasurementReport && !located(set.instance)) {
          set.isImagingMeasurementReport = false;
          set.instances = set.instances.map(readable);
        }
      }
    });
  },
};

window.config = {
  routerBasename: '/',
  extensions: [reportsAsText],
  modes: [],
  customizationService: {},
  showStudyList: true,
  showWarningMessageForCrossOrigin: false,
  showCPUFallbackMessage: true,
  showLoadingIndicator: true,
  strictZSpacingForVolumeViewport: true,
  investigationalUseDialog: { option: 'always' },
  maxNumberOfWebWorkers: 3,
  defaultDataSourceName: 'dicomweb',
  dataSources: [
    {
      namespace: '@ohif/extension-default.dataSourcesModule.dicomweb',
      sourceName: 'dicomweb',
      configuration: {
        friendlyName: 'ChatXRay',
        name: 'chatxray',
        qidoRoot: root,
        wadoRoot: root,
        wadoUriRoot: root,
        qidoSupportsIncludeField: true,
        imageRendering: 'wadors',
        thumbnailRendering: 'wadors',
        enableStudyLazyLoad: true,
        supportsFuzzyMatching: true,
        supportsWildcard: true,
        omitQuotationForMultipartRequest: true,
        bulkDataURI: { enabled: true, relativeResolution: 'studies' },
      },
    },
  ],
};
})();
`

// ofViewer is the key under which the access log finds that a request was for a file of the viewer, which it leaves out.
const ofViewer = "viewer"

// hashed matches the names of files that never change, because their content is part of the name.
var hashed = regexp.MustCompile(`(^|[./-])[0-9a-f]{16,32}\.[a-z0-9]+$`)

// viewer serves the files of a web viewer where no resource is. A page that is no file is a place inside the viewer, so it gets the
// viewer's page; a missing file stays missing. The files hold no patient data: nobody has to show who it is.
func (s *server) viewer(c *gin.Context) {
	p := c.Request.URL.Path
	if s.Pages == nil || p == Root || strings.HasPrefix(p, Root+"/") || c.Request.Method != http.MethodGet && c.Request.Method != http.MethodHead {
		return
	}
	name := strings.Trim(path.Clean("/"+p), "/")
	c.Header("Cache-Control", "no-cache")
	c.Header("Referrer-Policy", "same-origin")
	c.Set(ofViewer, true)
	if name == "app-config.js" {
		root, _ := json.Marshal(Root) // strings do not fail
		base, _ := json.Marshal(strings.TrimRight(s.BaseURL, "/"))
		c.Abort()
		c.Data(http.StatusOK, "text/javascript; charset=utf-8", []byte(strings.NewReplacer("BASE", string(base), "ROOT", string(root)).Replace(viewerConfig)))
		return
	}
	info, err := fs.Stat(s.Pages, name)
	switch {
	case err == nil && info.Mode().IsRegular() && name != "index.html":
	case path.Ext(name) == "" || name == "index.html" || strings.Contains(c.GetHeader("Accept"), "text/html"):
		name = "index.html"
	default:
		c.Writer.Header().Del("Cache-Control")
		c.Set(ofViewer, false)
		return
	}
	f, err := s.Pages.Open(name)
	if err != nil {
		return
	}
	defer f.Close()
	if hashed.MatchString(name) {
		c.Header("Cache-Control", "public, max-age=31536000, immutable")
	}
	seeker, ok := f.(interface {
		Read([]byte) (int, error)
		Seek(int64, int) (int64, error)
	})
	info, err = f.Stat()
	if err != nil || !ok {
		return
	}
	c.Abort()
	c.Status(http.StatusOK)
	http.ServeContent(c.Writer, c.Request, name, info.ModTime(), seeker)
}
