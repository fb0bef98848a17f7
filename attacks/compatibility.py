"""Reasons why an attack cannot work in a setting, shared by cards; read without torch."""

from __future__ import annotations

from fl.setting import Setting


def labels_unreadable(setting: Setting) -> str | None:
    """Return why labels that are not granted cannot be inferred from the head's gradient."""
    if setting.threat_model.knowledge.labels == "known":
        return None
    if not (setting.model.head_bias or setting.model.non_negative_features):
        return (
            "labels are read from the head's bias, or from its weights where features are never negative; "
            "this model has neither (knowledge.labels: known grants them)"
        )
    if not setting.length_known:
        return "the labels behind a weight delta are counted, which needs knowledge.local_hyperparameters"
    return None


def matches_lengths(setting: Setting) -> str | None:
    """Return why lengths of gradients cannot be matched."""
    if not setting.length_known:
        return "it matches lengths, so a weight delta needs knowledge.local_hyperparameters"
    return None


def no_mean_image(setting: Setting) -> str | None:
    """Return why there is no mean public image."""
    if not setting.threat_model.knowledge.public_data:
        return "the mean public image needs knowledge.public_data"
    if not setting.public_images:
        return "the mean public image needs public images, and this data set has none (public: names another)"
    return None
