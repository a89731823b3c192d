// Package rules decides by the configuration what the line does with a study. Expressions are those of github.com/expr-lang/expr: they have no
// loops without an end, no state and no way out.
package rules

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/expr-lang/expr"
	"github.com/expr-lang/expr/vm"

	"chatxray/pipeline"
)

// Config is the section "complete" of the configuration file.
type Config struct {
	// Requires is what a study must have before it is read, an expression over the fields of Images; empty: nothing.
	Requires string `yaml:"requires"`
	// Wait is how long a study waits for it, counted from its first image that no reading has seen.
	Wait time.Duration `yaml:"wait"`
	// Then is what becomes of a study that has waited so long: read, hold or drop.
	Then pipeline.Then `yaml:"then"`
}

// Default requires nothing.
func Default() Config { return Config{Wait: 10 * time.Minute, Then: pipeline.ThenRead} }

// maxWait is how long a study may wait at most.
const maxWait = 31 * 24 * time.Hour

// Check returns what is wrong with the configuration.
func (c Config) Check() error {
	var errs []error
	if _, err := c.compile(); err != nil {
		errs = append(errs, err)
	}
	if c.Wait < time.Second || c.Wait > maxWait {
		errs = append(errs, fmt.Errorf("complete.wait: %v is not between 1s and %v", c.Wait, maxWait))
	}
	if !slices.Contains(pipeline.Thens[:], c.Then) {
		errs = append(errs, fmt.Errorf("complete.then: %q is none of %v", c.Then, pipeline.Thens))
	}
	return errors.Join(errs...)
}

// Images is what an expression sees of a study: counts, and headers of its images. Nothing of it tells who the patient is.
type Images struct {
	Frontal   int      `expr:"frontal"`   // images that are read whose header says that they are frontal
	Lateral   int      `expr:"lateral"`   // images that would be read were they not lateral
	Unknown   int      `expr:"unknown"`   // images that are read whose header does not tell the view
	Images    []Image  `expr:"images"`    // everything with rows and columns
	Instances int      `expr:"instances"` // of any kind
	Series    []string `expr:"series"`    // Series Instance UIDs
}

// Image is an image of a study.
type Image struct {
	Modality string `expr:"modality"`  // (0008,0060)
	View     string `expr:"view"`      // View Position (0018,5101)
	BodyPart string `expr:"body_part"` // Body Part Examined (0018,0015)
	Side     string `expr:"side"`      // Image Laterality (0020,0062)
	Series   string `expr:"series"`    // Series Instance UID
	Class    string `expr:"class"`     // SOP Class UID
}

func (c Config) compile() (*vm.Program, error) {
	if c.Requires == "" {
		return nil, nil
	}
	p, err := expr.Compile(c.Requires, expr.Env(Images{}), expr.AsBool())
	if err != nil {
		return nil, fmt.Errorf("complete.requires: %w", err)
	}
	return p, nil
}

// lateral is the reason with which dicom.Select refuses lateral views.
const lateral = "lateral"

// Open makes the rule. choose tells which images of a study are read, and why the others are not.
func (c Config) Open(choose func(*pipeline.Study) ([]pipeline.Chosen, []pipeline.Refusal)) (pipeline.Completeness, error) {
	program, err := c.compile()
	if err != nil || program == nil {
		return pipeline.Completeness{}, err
	}
	missing := func(st *pipeline.Study) string {
		has := look(st, choose)
		met, err := expr.Run(program, has)
		if err == nil && met == true {
			return ""
		}
		why := fmt.Sprintf("complete.requires is not met: frontal %d, lateral %d, unknown %d, images %d, instances %d",
			has.Frontal, has.Lateral, has.Unknown, len(has.Images), has.Instances)
		if err != nil { // an index without an image, for example; what expr says may quote a header
			why += "; it cannot be told for these images"
		}
		return why
	}
	return pipeline.Completeness{Missing: missing, Wait: c.Wait, Then: c.Then}, nil
}

func look(st *pipeline.Study, choose func(*pipeline.Study) ([]pipeline.Chosen, []pipeline.Refusal)) Images {
	has := Images{Instances: len(st.Instances)}
	chosen, refused := choose(st)
	for _, c := range chosen {
		if c.ViewUnknown {
			has.Unknown++
		} else {
			has.Frontal++
		}
	}
	for _, r := range refused {
		if r.Reason == lateral {
			has.Lateral++
		}
	}
	for _, in := range st.Instances {
		if !slices.Contains(has.Series, in.SeriesInstanceUID) {
			has.Series = append(has.Series, in.SeriesInstanceUID)
		}
		h := in.Header
		if _, ok := h.Int(pipeline.TagRows); ok {
			has.Images = append(has.Images, Image{Modality: h.String(pipeline.TagModality), View: h.String(pipeline.TagViewPosition),
				BodyPart: h.String(pipeline.TagBodyPartExamined), Side: h.String(pipeline.TagImageLaterality), Series: in.SeriesInstanceUID, Class: in.SOPClassUID})
		}
	}
	return has
}
