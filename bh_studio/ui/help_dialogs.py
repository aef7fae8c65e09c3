"""What the program says about itself and its numbers. Plain text of our own."""

from __future__ import annotations

import math
import platform

import numpy
import pyqtgraph
import PySide6
from PySide6.QtCore import Qt, qVersion
from PySide6.QtGui import QFont, QTextBlockFormat, QTextCharFormat, QTextCursor, QTextOption
from PySide6.QtWidgets import QDialog, QDialogButtonBox, QFrame, QTextEdit, QVBoxLayout, QWidget

from bh_studio import __version__
from bh_studio.engine.records.terms import ModelInfo
from bh_studio.ui.widgets.theme import GAP

_SHARE_OF_SCREEN = 0.85
_READING = (
    (
        "The sides",
        "One to four sides continue the same prompt with the same model. The model's own routing "
        "uses a fixed number of experts for every token in every layer (top-8 for OLMoE). A rule "
        "such as BH chooses the number anew for each token and layer, between min_k and max_k. The "
        "sides take turns, token by token. When sampling, all draw with the same random numbers, "
        "so they part only where the routing has changed the probabilities enough. Each is "
        "compared with the first, A.",
    ),
    (
        "Same text",
        "With Same text beside the prompt (Ctrl+Shift+M) all sides read one given text, each in "
        "one pass, and nothing is generated. Tokens are counted from 0, as in the terminal and in "
        "files; nothing predicts that one. Perplexity is e to the power of the mean of -ln p of "
        "the token that stands there; lower predicts the text better. A rank is the place of that "
        "token among all by probability, from 1. KL, in nats, says how far the predictions of a "
        "side are from those of side A: 0 where they are alike. F3 goes from the largest to the "
        "next.",
    ),
    (
        "The BH rule",
        "In each layer the router gives every expert a probability. Its p-value is the share of "
        "scores at least as large among the experts that the model's own router discards in that "
        "layer, collected once on a calibration text. The Benjamini-Hochberg procedure at level "
        "alpha then decides which experts are used. A token's scores come from one hidden state "
        "and are not independent, and min_k and max_k override the rule; so alpha is a level to "
        "set, not a proven error rate.",
    ),
    (
        "Experts",
        "An expert count is the number of experts one token uses in one layer. It belongs to the "
        "position whose output predicted the token. “Mean experts” is the mean over all tokens of "
        "the answer and all layers; the prompt is not included. “min_k decided” and “max_k "
        "decided” are the shares of (token, layer) pairs in which the rule wanted fewer or more "
        "experts than the limits allow.",
    ),
    (
        "The colours",
        "The background of a token shows its mean experts over the layers; a cell of the heat map "
        "shows the experts of one token in one layer. Both use the same scale, from the smallest "
        "to the largest count possible in the run. A side with the model's own routing takes the "
        "same number everywhere and is left plain. View > Tint of tokens shows other things: the "
        "surprise, -log p in nats, or the rank of a token, both by its own side's probabilities "
        "before temperature and top-p, or its KL to side A. Of answers that the sides wrote, that "
        "is known up to the first token that is not A's; after that they have not read the same. "
        "The model of the run reads them again for it, when it is looked at. Tokens and layers are "
        "counted from 0, as in saved files.",
    ),
    (
        "The charts",
        "Whiskers are one standard deviation over tokens, as far as there can be so many experts. "
        "A difference is the count of a side less that of side A; after the first token that is "
        "another, they read different texts, and the picture is shaded. Utilisation is the share "
        "of all positions, the prompt's among them, in which an expert ran. Its balance, entropy / "
        "log experts, is the entropy of the shares that the experts of a layer have in all that "
        "ran there, over that of equal shares: 1 where all ran equally often. A log-probability "
        "is that of the token that was chosen, before temperature and top-p: 0 is certain.",
    ),
    (
        "Does the null fit?",
        "The two null charts fit the null of a side on one half of its calibration text and judge "
        "it on the other: p-values of the scores that it is about should be uniform, 5 % in each "
        "twentieth of 0 to 1. Small ones decide: where there are too many, at the left of the map, "
        "or as a line below the diagonal, the rule selects more than its level says; where there "
        "are too few, less. A null of all experts has the kept ones among them: there, too many "
        "may be what it is to find. A layer in red can never select a single expert: no p-value of "
        "its null is as small as that needs, alpha / experts for BH.",
    ),
    (
        "The token inspector",
        "Ctrl+I shows how the experts of the selected token were chosen; a click on a token, or "
        "the arrow keys, select one. In the strip a row is a layer, with its experts in the order "
        "in which the rule takes them: those left of the line are used. The figure shows what the "
        "rule compares in one layer, rank by rank. “What if” applies the rule at another level to "
        "the router logits that the run recorded; in a real run at that level later layers would "
        "see something else.",
    ),
    (
        "Speed",
        "Tok/s counts a side's own computing time from its first token to its last; the other "
        "sides' turns are left out. “First token” is the time until the first token, reading the "
        "prompt included. Short runs and a busy machine make both vary from run to run.",
    ),
    (
        "Analyze mode",
        "The model routes as always, so the text is that of its own routing. The counts are what "
        "the rule would have used; no computation is saved.",
    ),
    (
        "Conversations",
        "An instruct model can be talked to: a prompt is then a message, written with the model's "
        "own chat template, and each side remembers its own answers. Numbers and charts show the "
        "last turn. From the second turn on the sides read different histories, so their answers "
        "differ for that as well.",
    ),
    (
        "What the numbers do not say",
        "One run shows one prompt. Fewer experts with a similar text is not a measure of quality; "
        "that takes a loss over many texts.",
    ),
    (
        "Your runs",
        "Every run is kept while it goes on, so starting another one, an error or a crash loses "
        "nothing: History lists them. Saving gives a run a name and a place of your own.",
    ),
)


class TextDialog(QDialog):
    """A small window with headed paragraphs; does not block the main window."""

    def __init__(
        self, title: str, paragraphs: tuple[tuple[str, str], ...], parent: QWidget | None = None
    ) -> None:
        super().__init__(parent)
        self.setWindowTitle(title)
        self.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        self.text = QTextEdit()
        self.text.setReadOnly(True)
        self.text.setFrameShape(QFrame.Shape.NoFrame)
        self.text.viewport().setAutoFillBackground(False)
        # Hashes and paths have no place where a line could end.
        self.text.setWordWrapMode(QTextOption.WrapMode.WrapAtWordBoundaryOrAnywhere)
        self.text.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.text.document().setDocumentMargin(GAP)
        self.text.setAccessibleName(title)
        self.text.setToolTip(title)
        _write(self.text.textCursor(), paragraphs)
        self.text.moveCursor(QTextCursor.MoveOperation.Start)
        buttons = QDialogButtonBox(QDialogButtonBox.StandardButton.Close)
        buttons.rejected.connect(self.close)
        close = buttons.button(QDialogButtonBox.StandardButton.Close)
        close.setToolTip("Close this window (Esc)")
        close.setAccessibleName("Close")
        layout = QVBoxLayout(self)
        layout.addWidget(self.text, 1)
        layout.addWidget(buttons)
        self._layout = layout

    def fit(self, letters: int) -> None:
        """Be as wide as about `letters`, and as high as the text, as far as the screen is."""
        room = self.screen().availableSize() * _SHARE_OF_SCREEN
        width = min(self.fontMetrics().averageCharWidth() * letters, room.width())
        margins = self._layout.contentsMargins()
        document = self.text.document().clone(self)
        document.setTextWidth(width - margins.left() - margins.right() - _scroll_bar(self.text))
        text_height = math.ceil(document.size().height())
        document.deleteLater()
        buttons = self._layout.sizeHint().height() - self.text.sizeHint().height()
        self.resize(width, min(text_height + buttons, room.height()))


def _write(cursor: QTextCursor, paragraphs: tuple[tuple[str, str], ...]) -> None:
    above, plain, strong = QTextBlockFormat(), QTextCharFormat(), QTextCharFormat()
    above.setTopMargin(GAP)
    strong.setFontWeight(QFont.Weight.DemiBold)
    for place, (heading, text) in enumerate(paragraphs):
        if place:
            cursor.insertBlock(above)
        cursor.insertText(heading, strong)
        cursor.insertBlock(QTextBlockFormat())
        # Within a paragraph, lines stay together.
        cursor.insertText(text.replace("\n", "\N{LINE SEPARATOR}"), plain)


def _scroll_bar(area: QTextEdit) -> int:
    return area.verticalScrollBar().sizeHint().width()


def reading_dialog(parent: QWidget) -> TextDialog:
    """How to read the numbers."""
    dialog = TextDialog("How to read the numbers", _READING, parent)
    dialog.fit(86)
    return dialog


def about_dialog(parent: QWidget, model: ModelInfo | None) -> TextDialog:
    """Versions of the program and of what it is made of, and the loaded model."""
    versions = "\n".join(
        (
            f"Python {platform.python_version()}",
            f"Qt {qVersion()}, PySide6 {PySide6.__version__}",
            f"pyqtgraph {pyqtgraph.__version__}, NumPy {numpy.__version__}",
            platform.platform(),
        )
    )
    paragraphs = [
        (
            f"BH Studio {__version__}",
            "Compares top-k and Benjamini-Hochberg expert routing of OLMoE, side by side and live. "
            "Apache License 2.0. Runs entirely on this machine; the network is used only while a "
            "model is downloaded.",
        ),
        ("Versions", versions),
    ]
    if model is not None:
        paragraphs.append(
            (
                "Model",
                f"{model.name} ({model.architecture})\n{model.id}\n"
                f"Fingerprint {model.fingerprint}\nNull {model.null_sha256}",
            )
        )
    dialog = TextDialog("About BH Studio", tuple(paragraphs), parent)
    dialog.fit(72)
    return dialog
