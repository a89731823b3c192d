package dicomweb

import (
	"math"
	"net/http"
	"slices"

	"github.com/gin-gonic/gin"

	"chatxray/pipeline"
)

// Role is what somebody may do. Somebody may have several; none takes another one in.
type Role string

// The roles. A route names the one that it needs.
const (
	RoleStore Role = "store" // put objects in
	RoleRead  Role = "read"  // find and get them
	RoleAdmin Role = "admin" // delete them, release held reports, take up and drop what is not done

	anybody Role = ""    // without showing who it is
	known   Role = "any" // whoever has a role
)

// route is one line of the table that makes gin's routes, says who may use them, and is told as the OpenAPI document and as WADL.
type route struct {
	method  string // GET brings HEAD with it
	path    string // as gin writes it
	role    Role
	summary string
	query   []parameter // of query and header; those of the path are known by their names
	in      []string    // media types of the body
	out     []string    // media types of the answer
	also    []int       // statuses beside 200 that have such an answer; every other one is a JSON object with the sentence "error"
	handle  handler
}

// handler answers a request, or says why not: its error is refused, once what it held is free again.
type handler func(*gin.Context) error

// parameter is a parameter of a query, or of a header where In says so.
type parameter struct {
	name, in, about string
	schema          map[string]any // nil is a string
	required        bool
}

// The paths of resources.
const (
	studiesPath  = Root + "/studies"
	studyPath    = studiesPath + "/:study"
	seriesPath   = studyPath + "/series/:series"
	instancePath = seriesPath + "/instances/:instance"
)

// Media types that several routes share.
var (
	asJSON         = []string{"application/json"}
	asSearch       = []string{mediaJSON, `multipart/related; type="application/dicom+xml"`}
	asModels       = []string{mediaJSON, mediaXML}
	asInstance     = []string{`multipart/related; type="application/dicom"`, "application/dicom"}
	asCapabilities = []string{"application/vnd.sun.wadl+xml", "application/json"}
	asText         = []string{"text/plain"}
)

// What several routes take.
var (
	storeStatuses = []int{http.StatusAccepted, http.StatusConflict, http.StatusServiceUnavailable, http.StatusInsufficientStorage}
	searchQuery   = []parameter{
		{name: "limit", in: "query", about: "At most so many results; the service has a limit of its own.", schema: map[string]any{"type": "integer", "minimum": 1, "maximum": math.MaxInt64}},
		{name: "offset", in: "query", about: "Results to leave out first.", schema: map[string]any{"type": "integer", "minimum": 0, "maximum": maxOffset}},
		{name: "fuzzymatching", in: "query", about: "true: person names match fuzzily.", schema: map[string]any{"type": "string", "enum": []string{"", "true", "false"}}},
		{name: "includefield", in: "query", about: "Keyword or tag of an attribute to return, or all.", schema: map[string]any{"type": "string"}},
		{name: "orderby", in: "query", about: "Attributes to sort by, with commas between, a minus before one for descending.", schema: map[string]any{"type": "string",
			"pattern": orderPattern()}},
		{name: "PatientID", in: "query", about: "As an example of a key: every attribute of the level may be named by keyword or tag.", schema: map[string]any{"type": "string"}},
	}
)

// Media types of answers of WADO-RS.
var (
	asFiles    = []string{mediaMulti + `; type="application/dicom"`, mediaDICOM, mediaZip}
	asMetadata = []string{mediaJSON, mediaMulti + `; type="application/dicom+xml"`}
	pictures   = []string{"image/jpeg", "image/png", "image/gif"}
	asRendered = append([]string{mediaMulti + `; type="image/jpeg"`, "text/html", "application/pdf"}, pictures...)
	asFrames   = []string{mediaMulti + `; type="application/octet-stream"`, mediaOctets, mediaMulti + `; type="image/jls"`}
)

// renderQuery are the parameters of pictures (PS3.18 section 8.3.5).
var renderQuery = []parameter{
	{name: "window", in: "query", about: "center,width[,function]", schema: map[string]any{"type": "string",
		"pattern": "^(-?[0-9]{1,5}(\\.[0-9]{1,3})?,[1-9][0-9]{0,4}(,(linear|linear-exact|sigmoid))?)?$"}},
	{name: "viewport", in: "query", about: "width,height[,sx,sy,sw,sh]: as large as fits, of the region only; a negative sw or sh turns it round.",
		schema: map[string]any{"type": "string", "pattern": "^([1-9][0-9]{0,2},[1-9][0-9]{0,2})?$"}},
	{name: "quality", in: "query", about: "Of JPEG.", schema: map[string]any{"type": "integer", "minimum": 1, "maximum": 100}},
	{name: "annotation", in: "query", about: "Is written into the picture.", schema: map[string]any{"type": "string",
		"enum": []string{"", "patient", "technique", "patient,technique"}}},
}

// uriQuery are the parameters of WADO-URI (PS3.18 section 9.1).
var uriQuery = []parameter{
	{name: "requestType", in: "query", about: "WADO", schema: map[string]any{"type": "string", "const": "WADO"}, required: true},
	{name: "studyUID", in: "query", schema: uidSchema("Study Instance UID"), required: true},
	{name: "seriesUID", in: "query", schema: uidSchema("Series Instance UID"), required: true},
	{name: "objectUID", in: "query", schema: uidSchema("SOP Instance UID"), required: true},
	{name: "contentType", in: "query", about: "application/dicom or a picture.", schema: map[string]any{"type": "string",
		"enum": []string{mediaDICOM, "image/jpeg", "image/png"}}},
	{name: "transferSyntax", in: "query", about: "Of application/dicom: a UID. As stored where there is none.", schema: map[string]any{"type": "string", "enum": []string{explicitLE}}},
	{name: "rows", in: "query", about: "The height that a picture has at most.", schema: map[string]any{"type": "integer", "minimum": 1, "maximum": maxViewport}},
	{name: "columns", in: "query", about: "The width that a picture has at most.", schema: map[string]any{"type": "integer", "minimum": 1, "maximum": maxViewport}},
	{name: "region", in: "query", about: "xmin,ymin,xmax,ymax in parts of the image.", schema: map[string]any{"type": "string",
		"pattern": "^(0|0\\.[1-4]),(0|0\\.[1-4]),(1|0\\.[5-9]),(1|0\\.[5-9])$"}},
	{name: "imageQuality", in: "query", about: "Of JPEG.", schema: map[string]any{"type": "integer", "minimum": 1, "maximum": 100}},
	{name: "annotation", in: "query", about: "Is written into the picture.", schema: map[string]any{"type": "string",
		"enum": []string{"", "patient", "technique", "patient,technique"}}},
	{name: "frameNumber", in: "query", schema: map[string]any{"type": "integer", "minimum": 1, "maximum": math.MaxInt32}},
}

// pageQuery are the parameters of lists that come page by page.
var pageQuery = []parameter{
	{name: "after", in: "query", about: "Behind this Study Instance UID: the answer's next.", schema: uidSchema("Study Instance UID")},
	{name: "limit", in: "query", about: "At most so many studies.", schema: map[string]any{"type": "integer", "minimum": 1, "maximum": maxLives}},
}

var livesQuery = append([]parameter{
	{name: "state", in: "query", about: "Only studies in this state.", schema: map[string]any{"type": "string", "enum": append([]pipeline.State{""}, pipeline.States...)}},
}, pageQuery...)

var jobsQuery = append([]parameter{
	{name: "destination", in: "query", about: "Only deliveries to it.", schema: map[string]any{"type": "string"}},
	{name: "dead", in: "query", about: "Only what was given up, or only what was not.", schema: map[string]any{"type": "string", "enum": []string{"", "true", "false"}}},
}, pageQuery...)

var jobQuery = []parameter{
	{name: "destination", in: "query", about: "The delivery to it; without one, the reading.", schema: map[string]any{"type": "string"}},
}

var deliveryQuery = []parameter{
	{name: "destination", in: "query", about: "Its name.", schema: map[string]any{"type": "string", "minLength": 1}, required: true},
}

// acceptQuery is the parameter that a link has in place of the header Accept.
func acceptQuery(media []string) []parameter {
	return []parameter{{name: "accept", in: "query", about: "Counts before the header Accept.", schema: map[string]any{"type": "string", "enum": slices.Concat([]string{""}, media)}}}
}

// retrieveRoutes lists the resources of WADO-RS.
func (s *server) retrieveRoutes() (t []route) {
	get := func(path, what string, query []parameter, out []string, handle handler) {
		t = append(t, route{"GET", path, RoleRead, what + " (WADO-RS)", query, nil, out, nil, handle})
	}
	for _, l := range []struct{ path, what string }{{studyPath, "a study"}, {seriesPath, "a series"}, {instancePath, "an instance"}} {
		get(l.path, "Retrieve "+l.what, acceptQuery(asFiles), asFiles, s.retrieve)
		get(l.path+"/metadata", "Retrieve the metadata of "+l.what, acceptQuery(asMetadata), asMetadata, s.metadata)
		get(l.path+"/rendered", "Render "+l.what, renderQuery, asRendered, s.rendered)
		get(l.path+"/thumbnail", "Render "+l.what+" as a small picture", renderQuery, pictures, s.thumbnail)
	}
	get(instancePath+"/frames/:frames", "Retrieve frames", nil, asFrames, s.frames)
	get(instancePath+"/frames/:frames/rendered", "Render frames", renderQuery, asRendered, s.rendered)
	get(instancePath+"/frames/:frames/thumbnail", "Render a frame as a small picture", renderQuery, pictures, s.thumbnail)
	get(instancePath+"/bulkdata/*path", "Retrieve a binary value that metadata name", nil, asFrames, s.bulkdata)
	return t
}

// table lists every route.
func (s *server) table() []route {
	t := []route{
		{"GET", "/healthz", anybody, "The process answers", nil, nil, asJSON, nil, s.health},
		{"GET", "/readyz", anybody, "What the service needs is there", nil, nil, asJSON, []int{http.StatusServiceUnavailable}, s.ready},
		{"OPTIONS", Root, known, "What the service can do (PS3.18 section 8.9)", nil, nil, asCapabilities, nil, s.capabilities},
		{"GET", Root + "/openapi.json", known, "This document", nil, nil, asJSON, nil, s.openapi},
		{"GET", "/metrics", known, "Metrics for Prometheus", nil, nil, asText, nil, s.exposition},

		{"POST", studiesPath, RoleStore, "Store instances (STOW-RS), also as metadata in application/dicom+json or +xml with bulk data", nil, asInstance, asModels, storeStatuses, s.stow},
		{"POST", studyPath, RoleStore, "Store instances of one study (STOW-RS), also as metadata with bulk data", nil, asInstance, asModels, storeStatuses, s.stow},

		{"GET", "/wado", RoleRead, "Retrieve an instance (WADO-URI)", uriQuery, nil, append([]string{mediaDICOM}, pictures...), nil, s.wadoURI},
	}
	t = append(t, s.retrieveRoutes()...)
	for _, l := range []struct {
		path, what string
		level      pipeline.Level
	}{
		{studiesPath, "studies", pipeline.StudyLevel}, {Root + "/series", "series", pipeline.SeriesLevel}, {Root + "/instances", "instances", pipeline.InstanceLevel},
		{studyPath + "/series", "series of a study", pipeline.SeriesLevel}, {studyPath + "/instances", "instances of a study", pipeline.InstanceLevel},
		{seriesPath + "/instances", "instances of a series", pipeline.InstanceLevel},
	} {
		t = append(t,
			route{"GET", l.path, RoleRead, "Search for " + l.what + " (QIDO-RS)", searchQuery, nil, asSearch, nil, s.search(l.level)},
			route{"GET", l.path + "/count", RoleRead, "Count " + l.what + " that match", searchQuery, nil, asJSON, nil, s.count(l.level)})
	}
	if s.Config.Delete && s.Deleter != nil {
		t = append(t,
			route{"DELETE", studyPath, RoleAdmin, "Delete a study, with our readings of it", nil, nil, nil, nil, s.remove},
			route{"DELETE", seriesPath, RoleAdmin, "Delete a series", nil, nil, nil, nil, s.remove},
			route{"DELETE", instancePath, RoleAdmin, "Delete an instance", nil, nil, nil, nil, s.remove})
	}
	if s.Readings != nil {
		t = append(t,
			route{"GET", studyPath + "/reading", RoleRead, "How far a study has come, and the record that tells so", nil, nil, asJSON, nil, ofStudy(s.reading)},
			route{"GET", Root + "/readings", RoleRead, "Where studies stand, in the order of their UIDs", livesQuery, nil, asJSON, nil, s.readings},
			route{"GET", studyPath + "/reading/timeline", RoleRead, "The steps of a study's life", nil, nil, asJSON, nil, ofStudy(s.timeline)},
			route{"GET", studyPath + "/reading/records", RoleRead, "All records of a study: one for each set of images that was read", nil, nil, asJSON, nil, ofStudy(s.records)},
			route{"GET", studyPath + "/reading/image", RoleRead, "The picture that the model saw", nil, nil, []string{"image/png"}, nil, ofStudy(s.readingImage)},
			route{"GET", heatPath, RoleRead, "Where a sentence of the report rests on that picture", []parameter{
				{name: "sentence", in: "query", about: "Its number, from 1.", schema: map[string]any{"type": "integer", "minimum": 1}},
			}, nil, []string{"image/png"}, nil, ofStudy(s.readingHeat)},
			route{"POST", studyPath + "/reading/release", RoleAdmin, "Let a held report go: it is written and delivered", nil, nil, asJSON, nil, ofStudy(s.readingRelease)},
			route{"POST", studyPath + "/reading/force", RoleAdmin, "Have a study read as it is, without waiting for more images", nil, nil, asJSON, nil, ofStudy(s.readingForce)})
	}
	if s.Work != nil {
		accepted := []int{http.StatusAccepted}
		t = append(t,
			route{"GET", Root + "/jobs", RoleRead, "What is not done: studies to read, documents to deliver", jobsQuery, nil, asJSON, nil, s.jobs},
			route{"GET", studyPath + "/jobs", RoleRead, "What is not done of a study", nil, nil, asJSON, nil, s.studyTasks("jobs", s.Work.StudyTasks)},
			route{"POST", studyPath + "/jobs/retry", RoleAdmin, "Take up what was given up", jobQuery, nil, asJSON, accepted, s.taskChange(false, s.Work.Retry)},
			route{"POST", studyPath + "/jobs/drop", RoleAdmin, "Give up what is not done", jobQuery, nil, asJSON, accepted, s.taskChange(false, s.Work.Drop)},
			route{"GET", Root + "/deliveries", RoleRead, "Documents that are not delivered, and how the destinations answer", jobsQuery, nil, asJSON, nil, s.deliveries},
			route{"GET", studyPath + "/deliveries", RoleRead, "What became of a study's documents at each destination", nil, nil, asJSON, nil, s.studyTasks("deliveries", s.Work.Deliveries)},
			route{"POST", studyPath + "/deliveries/retry", RoleAdmin, "Take up a delivery that was given up", deliveryQuery, nil, asJSON, accepted, s.taskChange(true, s.Work.Retry)},
			route{"POST", studyPath + "/deliveries/drop", RoleAdmin, "Give up a delivery", deliveryQuery, nil, asJSON, accepted, s.taskChange(true, s.Work.Drop)})
	}
	return s.parted(append(t, s.chatRoutes()...))
}

// register makes gin's routes from the table.
func (s *server) register(e *gin.Engine) {
	for _, r := range s.table() {
		methods := []string{r.method}
		if r.method == http.MethodGet {
			methods = append(methods, http.MethodHead)
		}
		for _, m := range methods {
			e.Handle(m, r.path, s.admitTo(r.role), func(c *gin.Context) {
				if err := r.handle(c); err != nil {
					s.refuse(c, err)
				}
			})
		}
	}
}
